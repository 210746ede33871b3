//! Whoever follows one call finds its way through the cluster, and nobody waits for whoever follows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jangbu_proto::convert;
use jangbu_tests::{Cluster, Payer, Payments, Settings, Signal, open_accounts, payment, until};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    resource::v1::Resource,
    trace::v1::Span,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What the traces begin with that are asked for.
const ASKED_FOR: &str = "0af7651916cd43dd8448eb211c8031";
const CALLER: &str = "b7ad6b7169203331";

/// How long followers stand still: nobody stands for election yet.
const STANDSTILL: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_one_trace_on_both_nodes_a_slow_quorum_shows_in_it_and_no_collector_holds_up_another() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut cluster = Cluster::unborn(Settings::default());
    for id in [1, 2] {
        // Only what a caller asks for.
        let settings = format!("[tracing]\nendpoint = \"http://{address}\"\ncalls_per_million = 0\n");
        cluster.node(id).adjust(&settings);
    }
    // Node 3 traces everything, and nobody takes it.
    cluster.node(3).adjust("[tracing]\nendpoint = \"http://127.0.0.1:1\"\ncalls_per_million = 1000000\n");
    cluster.start_all();
    cluster.initialize().await;
    cluster.serves().await;
    open_accounts(&cluster, 1).await;
    cluster.move_leader(1).await;

    let handed_on = format!("{ASKED_FOR}9c");
    pay(&cluster, 2, &handed_on).await.expect("it is paid");
    let untraced = cluster.door(2).create_transfers(&[payment(5)], Duration::from_secs(5)).await;
    untraced.expect("it is paid");
    let held_up = pay_while_followers_stand_still(&mut cluster).await;

    assert_is_handed_on(&collector.has_of(&handed_on, 6).await);
    let spans = collector.has_of(&held_up, 4).await;
    let told: Vec<_> = spans.keys().map(|(node, name)| (node.as_str(), name.as_str())).collect();
    assert_eq!(told, [("1", "apply"), ("1", "commit"), ("1", "create_transfers"), ("1", "gather")]);
    assert_eq!(spans[&on("1", "commit")].end_time_unix_nano, spans[&on("1", "apply")].start_time_unix_nano);
    assert!(lasted(&spans[&on("1", "commit")]) >= STANDSTILL, "the quorum was waited for: {spans:?}");
    assert!(collector.traces().iter().all(|trace| trace.starts_with(ASKED_FOR)), "what nobody asked for isn't traced");

    // One collector is gone, the other was never there.
    let patient = Payments { deadline: Duration::from_secs(20), ..Payments::default() };
    serving.abort();
    let payer = Payer::start_at(&cluster, &[3], patient).await;
    payer.progresses(2_000, "though nobody takes their spans").await;
    assert_eq!(payer.stop().await.troubles(), Vec::<String>::new());
}

/// A payment of a caller that wants its trace.
async fn pay(cluster: &Cluster, at: u64, trace: &str) -> Result<(), Status> {
    let mut asked = Request::new(convert::transfers_to_wire(&[payment(5)]));
    let traceparent = format!("00-{trace}-{CALLER}-01");
    asked.metadata_mut().insert("traceparent", traceparent.parse().expect("a header"));
    cluster.door(at).ledger().create_transfers(asked).await.map(|_| ())
}

/// The trace of a payment that came to node 1, the leader, while no quorum could answer it.
async fn pay_while_followers_stand_still(cluster: &mut Cluster) -> String {
    // On a machine that stands still itself the leader may change meanwhile: then once more.
    for attempt in 1..=5 {
        cluster.move_leader(1).await;
        let trace = format!("{ASKED_FOR}{attempt:02x}");
        for id in [2, 3] {
            cluster.node(id).signal(Signal::Pause);
        }
        let standstill = async {
            sleep(STANDSTILL).await;
            for id in [2, 3] {
                cluster.node(id).signal(Signal::Resume);
            }
        };
        let (paid, ()) = tokio::join!(pay(cluster, 1, &trace), standstill);
        if paid.is_ok() && cluster.leader().await == 1 {
            return trace;
        }
    }
    panic!("whenever the followers stood still for {STANDSTILL:?}, the leader changed");
}

/// By node and name.
type Spans = BTreeMap<(String, String), Span>;

fn on(node: &str, name: &str) -> (String, String) {
    (node.to_owned(), name.to_owned())
}

fn assert_is_handed_on(spans: &Spans) {
    let told: Vec<_> = spans.keys().map(|(node, name)| (node.as_str(), name.as_str())).collect();
    let (at_the_leader, at_the_door) = (["apply", "commit", "gather"], ["create_transfers", "forward", "gather"]);
    assert_eq!(told, [at_the_leader.map(|name| ("1", name)), at_the_door.map(|name| ("2", name))].concat());
    let call = &spans[&on("2", "create_transfers")];
    assert_eq!(hex(&call.parent_span_id), CALLER);
    for name in ["gather", "forward"] {
        assert_eq!(spans[&on("2", name)].parent_span_id, call.span_id, "{name}");
    }
    for name in at_the_leader {
        assert_eq!(spans[&on("1", name)].parent_span_id, spans[&on("2", "forward")].span_id, "{name}");
    }
    let is_of_log = |span: &Span| span.attributes.iter().any(|attribute| attribute.key == "jangbu.log_index");
    assert!(is_of_log(&spans[&on("1", "commit")]) && is_of_log(&spans[&on("2", "forward")]), "{spans:?}");
}

fn lasted(span: &Span) -> Duration {
    Duration::from_nanos(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano))
}

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    fn spans_of(&self, trace: &str) -> Spans {
        let spans = self.0.lock().expect("nothing here panics while it holds the lock");
        let of_trace = spans.iter().filter(|(_, span)| hex(&span.trace_id) == trace);
        of_trace.map(|(node, span)| (on(node, &span.name), span.clone())).collect()
    }

    /// Waits for so many.
    async fn has_of(&self, trace: &str, count: usize) -> Spans {
        until(format!("{count} spans of {trace} are told of"), async || {
            let spans = self.spans_of(trace);
            (spans.len() >= count).then_some(spans)
        })
        .await
    }

    fn traces(&self) -> Vec<String> {
        let spans = self.0.lock().expect("nothing here panics while it holds the lock");
        spans.iter().map(|(_, span)| hex(&span.trace_id)).collect()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().expect("nothing here panics while it holds the lock");
        for of_node in request.into_inner().resource_spans {
            let node = node_of(&of_node.resource.unwrap_or_default());
            let spans = of_node.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| (node.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn node_of(resource: &Resource) -> String {
    let instance = resource.attributes.iter().find(|attribute| attribute.key == "service.instance.id");
    match instance.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(node)) => node,
        other => panic!("who sends spans says who it is, not {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
