//! What comes in by the doors: from clients, and from peers.

use bytes::Bytes;
use jangbu_ledger::{CreateAccountStatus, CreateTransferStatus};
use jangbu_proto::{
    batch::{Batch, BatchBuilder, Replies, events_count, with_time},
    cluster::v1 as cluster,
    convert,
    entry::Entry,
    grant::Identity,
    jangbu::v1,
    token::BearerToken,
};
use prost::Message;

/// What is taken is written as it was read, but for the order of roles and ledgers.
pub fn identity(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string().parse().as_ref(), Ok(&identity), "what is read back is the same");
    }
    if let Ok(token) = BearerToken::parse(text) {
        assert_eq!(token.to_secret().reveal(), text, "one token, one writing");
    }
}

/// The first byte chooses the message.
pub fn client_message(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 8 {
        0 => decoded(bytes, |request: v1::CreateAccountsRequest| {
            let Ok(records) = convert::pack_accounts(&request) else { return };
            let accounts: Vec<_> = convert::unpack_accounts(&records).collect();
            assert_eq!(convert::pack_accounts(&convert::accounts_to_wire(&accounts)).as_ref(), Ok(&records));
        }),
        1 => decoded(bytes, |request: v1::CreateTransfersRequest| {
            let Ok(records) = convert::pack_transfers(&request) else { return };
            let transfers: Vec<_> = convert::unpack_transfers(&records).collect();
            assert_eq!(convert::pack_transfers(&convert::transfers_to_wire(&transfers)).as_ref(), Ok(&records));
        }),
        2 => decoded(bytes, |request: v1::LookupAccountsRequest| {
            let _ = convert::consistency(request.read.as_ref());
            let Ok(ids) = convert::ids(&request.ids) else { return };
            assert_eq!(convert::ids_to_wire(ids), request.ids);
        }),
        3 => decoded(bytes, |request: v1::GetAccountTransfersRequest| {
            let Ok(filter) = convert::account_filter(request.filter.as_ref()) else { return };
            let again = convert::account_filter_to_wire(&filter);
            assert_eq!(convert::account_filter(Some(&again)).as_ref(), Ok(&filter));
        }),
        4 => decoded(bytes, |request: v1::QueryTransfersRequest| {
            let Ok(filter) = convert::query_filter(request.filter.as_ref()) else { return };
            let again = convert::query_filter_to_wire(&filter);
            assert_eq!(convert::query_filter(Some(&again)).as_ref(), Ok(&filter));
        }),
        5 => decoded(bytes, |request: v1::GetChangeEventsRequest| {
            let Ok(filter) = convert::change_events_filter(request.filter.as_ref()) else { return };
            let again = convert::change_events_filter_to_wire(&filter);
            assert_eq!(convert::change_events_filter(Some(&again)).as_ref(), Ok(&filter));
        }),
        // What a client makes of a node's answers.
        6 => decoded(bytes, |reply: v1::ChangeEventsReply| drop(convert::change_events(&reply.events))),
        _ => decoded(bytes, |reply: v1::CreateTransfersReply| {
            let _ = convert::results::<CreateTransferStatus>(&reply.results, reply.results.len());
        }),
    }
}

/// A request as clients pack it, an answer as they unpack it, and the two bodies in which both travel further.
pub fn packed_stream(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 4 {
        0 => decoded(bytes, |request: v1::SubmitRequest| {
            let Ok((operation, records)) = convert::submitted(request) else { return };
            let mut builder = BatchBuilder::new();
            builder.push(operation, &records);
            let batch = Batch::parse(builder.finish(1)).expect("what was let in makes a body");
            assert_eq!(batch.events_count(), events_count(records.len()).expect("it was checked") as usize);
            assert_eq!(convert::record_ids(&records).len(), batch.events_count());
        }),
        1 => decoded(bytes, |reply: v1::SubmitReply| {
            let Some(v1::submit_reply::Outcome::Applied(applied)) = reply.outcome else { return };
            let count = applied.events_count as usize;
            let Ok((_, view)) = convert::view_of_applied(&applied, count) else { return };
            // As many as were asked for: a client knows how many that may be.
            if count <= jangbu_proto::batch::EVENTS_MAX {
                let _ = convert::results_of::<CreateAccountStatus>(&view);
                let _ = convert::results_of::<CreateTransferStatus>(&view);
            }
        }),
        2 => body(Bytes::copy_from_slice(bytes)),
        _ => replies(Bytes::copy_from_slice(bytes)),
    }
}

/// The first byte chooses the message.
pub fn peer_message(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 6 {
        0 => decoded(bytes, |request: cluster::AppendRequest| {
            for entry in request.entries {
                if let Ok(parsed) = Entry::parse(entry.clone()) {
                    assert_eq!(parsed.encode(), entry, "one entry, one encoding");
                }
            }
        }),
        1 => decoded(bytes, |request: cluster::ForwardRequest| body(request.requests)),
        2 => decoded(bytes, |reply: cluster::ForwardReply| replies(reply.replies)),
        3 => decoded(bytes, |message: cluster::SnapshotMessage| assert!(message.encoded_len() <= bytes.len() * 8)),
        4 => decoded(bytes, |request: cluster::VoteRequest| {
            let Some(envelope) = request.envelope else { return };
            let _ = envelope.encode_to_vec();
        }),
        _ => decoded(bytes, |reply: cluster::IdentifyReply| {
            let _ = convert::bytes_16("cluster_id", &reply.cluster_id);
            let Ok((id, node)) = convert::node_from_wire(reply.node.as_ref()) else { return };
            let again = convert::node_to_wire(id, &node);
            assert_eq!(convert::node_from_wire(Some(&again)).as_ref(), Ok(&(id, node)));
        }),
    }
}

fn body(body: Bytes) {
    let Ok(batch) = Batch::parse(body.clone()) else { return };
    assert_eq!(batch.requests().map(|request| request.events().len()).sum::<usize>(), batch.events_count());
    let stamps: Vec<u64> = batch.stamped(batch.time()).map(|(time, _)| time).collect();
    assert!(stamps.is_sorted());
    let later = Batch::parse(with_time(body, 5)).expect("another time leaves it a body");
    assert_eq!((later.time(), later.events_count()), (5, batch.events_count()));
}

fn replies(replies: Bytes) {
    let Ok(replies) = Replies::parse(replies) else { return };
    for view in replies.iter() {
        // How many there are, the caller knows and compares; here it may be a claim of four billion.
        let _ = view.exceptions().count();
    }
}

fn decoded<M: Message + Default>(bytes: &[u8], check: impl FnOnce(M)) {
    if let Ok(message) = M::decode(Bytes::copy_from_slice(bytes)) {
        check(message);
    }
}
