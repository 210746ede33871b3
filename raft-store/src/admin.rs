//! The administration's own books: the cluster's version, the tokens, and the audit trail's end.
//!
//!     entry `admin` -> apply -> what it changes, and one more link of the trail -> reply: that link
//!
//! Laws
//! * What a command does follows from the commands before it and itself; so every replica has the same trail.
//! * Each record of the trail carries the hash of the one before (`proto::trail`).
//! * The version only rises. A command of a version that this program doesn't know stops the replica.
//! * Memory holds the tokens and what was recorded since the last flush; the trail itself is on disk.
//!
//! Not here: who may ask for what (`node`), and the rules of money (`ledger`).

use crate::error::StoreError;
use jangbu_proto::cluster::v1::admin_command::Command;
use jangbu_proto::cluster::v1::{AdminCommand, AdminState, AuditRecord, Role, Token};
use jangbu_proto::{token, trail};
use prost::Message;
use std::collections::BTreeMap;

/// The version that a cluster begins with, and that programs before versions have.
pub const VERSION_MIN: u32 = 1;

/// The newest version that this program knows: 2 brought administrative entries.
pub const VERSION_MAX: u32 = 2;

/// The version from which on there are administrative entries.
pub const VERSION_WITH_ADMIN: u32 = 2;

/// The action of a note that says, once it is done, that there is a backup.
pub const NOTE_BACKUP: &str = "backup run";

/// The outcome of a note on what was done.
pub const NOTE_DONE: &str = "done";

/// Of tokens that are kept, revoked ones included.
pub const TOKENS_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    version: u32,
    records_count: u64,
    last_hash: [u8; trail::HASH_BYTES],
    tokens: BTreeMap<String, Token>,
    backed_up_at: u64,
    /// Recorded and not flushed yet, oldest first.
    recent: Vec<AuditRecord>,
    /// So many of them are on their way to the disk.
    frozen: usize,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            version: VERSION_MIN,
            records_count: 0,
            last_hash: [0; trail::HASH_BYTES],
            tokens: BTreeMap::new(),
            backed_up_at: 0,
            recent: Vec::new(),
            frozen: 0,
        }
    }
}

impl Admin {
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Records ever made.
    pub fn records_count(&self) -> u64 {
        self.records_count
    }

    /// Of the last record; zero before the first. It stands for the whole trail.
    pub fn last_hash(&self) -> [u8; trail::HASH_BYTES] {
        self.last_hash
    }

    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &Token> {
        self.tokens.values()
    }

    pub fn token(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id)
    }

    /// When a backup was last said to have come to its end, in log time; 0: never. For the metrics: nothing is decided by it.
    pub fn backed_up_at(&self) -> u64 {
        self.backed_up_at
    }

    /// Those that are in memory still, from `number` on.
    pub fn recent_from(&self, number: u64) -> impl Iterator<Item = &AuditRecord> {
        self.recent.iter().filter(move |record| record.number >= number)
    }

    /// Carries a command out and records it. `version_max`: what this replica's program knows.
    pub fn apply(
        &mut self,
        log_index: u64,
        timestamp: u64,
        command: &[u8],
        version_max: u32,
    ) -> Result<&AuditRecord, StoreError> {
        let unreadable = |reason: &str| StoreError::unreadable_entry(log_index, reason);
        let parsed = AdminCommand::decode(command).map_err(|error| unreadable(&format!("admin: {error}")))?;
        let asked = parsed.command.ok_or_else(|| unreadable("admin.command: is none that this program knows"))?;
        let refused = match asked {
            Command::Note(note) => {
                if note.action == NOTE_BACKUP && note.outcome == NOTE_DONE {
                    self.backed_up_at = timestamp;
                }
                Ok(())
            }
            Command::RaiseVersion(raise) if raise.version > version_max => {
                return Err(StoreError::TooNew { version: raise.version, version_max });
            }
            Command::RaiseVersion(raise) => self.raise_version(raise.version),
            Command::CreateToken(create) => self.create_token(create.token.unwrap_or_default(), timestamp),
            Command::RevokeToken(revoke) => self.revoke_token(&revoke.token_id, timestamp),
        };
        self.record(log_index, timestamp, command, refused.err().unwrap_or_default());
        Ok(self.recent.last().expect("it was recorded a moment ago"))
    }

    fn raise_version(&mut self, version: u32) -> Result<(), String> {
        if version <= self.version {
            return Err(format!("the cluster is at version {} already", self.version));
        }
        self.version = version;
        Ok(())
    }

    fn create_token(&mut self, token: Token, timestamp: u64) -> Result<(), String> {
        check_token(&token)?;
        if self.tokens.contains_key(&token.token_id) {
            return Err(format!("token_id: {} was used before", token.token_id));
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(format!("there are {TOKENS_MAX} tokens already"));
        }
        let token = Token { created_at: timestamp, revoked_at: 0, ..token };
        self.tokens.insert(token.token_id.clone(), token);
        Ok(())
    }

    fn revoke_token(&mut self, id: &str, timestamp: u64) -> Result<(), String> {
        match self.tokens.get_mut(id) {
            None => Err(format!("token_id: there is no token {id}")),
            Some(token) if token.revoked_at > 0 => Err(format!("token_id: {id} is revoked already")),
            Some(token) => {
                token.revoked_at = timestamp;
                Ok(())
            }
        }
    }

    fn record(&mut self, log_index: u64, timestamp: u64, command: &[u8], refused: String) {
        let mut record = AuditRecord {
            number: self.records_count + 1,
            log_index,
            timestamp,
            command: command.to_vec().into(),
            refused,
            previous_hash: self.last_hash.to_vec().into(),
            hash: Default::default(),
        };
        self.last_hash = trail::hash_of(&record);
        record.hash = self.last_hash.to_vec().into();
        self.records_count = record.number;
        self.recent.push(record);
    }

    // --- as it is flushed

    /// What is to be flushed; memory keeps it until that is done.
    pub(crate) fn freeze(&mut self) -> Vec<AuditRecord> {
        assert_eq!(self.frozen, 0, "one flush at a time");
        self.frozen = self.recent.len();
        self.recent.clone()
    }

    pub(crate) fn forget_frozen(&mut self) {
        self.recent.drain(..std::mem::take(&mut self.frozen));
    }

    /// All but the trail's records.
    pub(crate) fn encode(&self) -> Vec<u8> {
        AdminState {
            version: self.version,
            records_count: self.records_count,
            last_hash: self.last_hash.to_vec().into(),
            tokens: self.tokens.values().cloned().collect(),
            backed_up_at: self.backed_up_at,
        }
        .encode_to_vec()
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Admin> {
        let state = AdminState::decode(payload).ok()?;
        Some(Admin {
            version: state.version,
            records_count: state.records_count,
            last_hash: state.last_hash[..].try_into().ok()?,
            tokens: state.tokens.into_iter().map(|token| (token.token_id.clone(), token)).collect(),
            // 0 as well of what was flushed by a program that didn't keep it.
            backed_up_at: state.backed_up_at,
            recent: Vec::new(),
            frozen: 0,
        })
    }
}

fn check_token(token: &Token) -> Result<(), String> {
    token::check_id(&token.token_id).map_err(|malformed| malformed.to_string())?;
    if token.secret_hash.len() != token::HASH_BYTES {
        return Err(format!("secret_hash: takes {} bytes", token::HASH_BYTES));
    }
    match token.role() {
        Role::Unspecified => Err("role: is none".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jangbu_proto::cluster::v1::{CreateToken, Note, RaiseVersion, RevokeToken};

    fn command(command: Command) -> Vec<u8> {
        AdminCommand { actor: "kim".into(), address: "127.0.0.1:9".into(), node_id: 1, command: Some(command) }
            .encode_to_vec()
    }

    fn note(action: &str) -> Vec<u8> {
        command(Command::Note(Note { action: action.into(), ..Note::default() }))
    }

    fn backup(outcome: &str) -> Vec<u8> {
        let note = Note { action: NOTE_BACKUP.into(), outcome: outcome.into(), ..Note::default() };
        command(Command::Note(note))
    }

    fn token(id: &str) -> Vec<u8> {
        let token = Token {
            token_id: id.into(),
            secret_hash: vec![7; 32].into(),
            role: Role::Writer.into(),
            ..Token::default()
        };
        command(Command::CreateToken(CreateToken { token: Some(token) }))
    }

    fn apply(admin: &mut Admin, command: &[u8]) -> AuditRecord {
        let index = admin.records_count() + 10;
        admin.apply(index, index * 100, command, VERSION_MAX).unwrap().clone()
    }

    #[test]
    fn the_version_rises_and_never_goes_back() {
        let mut admin = Admin::default();
        let raise = |version| command(Command::RaiseVersion(RaiseVersion { version }));
        assert_eq!(apply(&mut admin, &raise(2)).refused, "");
        assert_eq!(apply(&mut admin, &raise(1)).refused, "the cluster is at version 2 already");
        assert_eq!(admin.version(), 2);
        let refused = admin.apply(99, 99, &raise(VERSION_MAX + 1), VERSION_MAX);
        assert!(matches!(refused, Err(StoreError::TooNew { .. })), "nobody may guess what it means: {refused:?}");
        assert_eq!(admin.records_count(), 2);
    }

    #[test]
    fn a_token_is_made_once_and_revoked_once() {
        let mut admin = Admin::default();
        assert_eq!(apply(&mut admin, &token("shop")).refused, "");
        assert_eq!(apply(&mut admin, &token("shop")).refused, "token_id: shop was used before");
        assert_eq!(apply(&mut admin, &token("a b")).refused, "token_id: takes 1 to 64 letters, digits, '-' and '_'");
        let revoke = |id: &str| command(Command::RevokeToken(RevokeToken { token_id: id.into() }));
        assert_eq!(apply(&mut admin, &revoke("shop")).refused, "");
        assert_eq!(admin.token("shop").unwrap().revoked_at, 1_300);
        assert_eq!(apply(&mut admin, &revoke("shop")).refused, "token_id: shop is revoked already");
        assert_eq!(apply(&mut admin, &revoke("x")).refused, "token_id: there is no token x");
    }

    #[test]
    fn what_was_done_is_one_unbroken_trail() {
        let mut admin = Admin::default();
        let records: Vec<AuditRecord> = (0..4).map(|at| apply(&mut admin, &note(&format!("act {at}")))).collect();
        assert_eq!(trail::verify((0, vec![0; 32]), &records), Ok((4, admin.last_hash().to_vec())));
    }

    #[test]
    fn the_newest_backup_is_the_last_that_came_to_its_end() {
        let mut admin = Admin::default();
        assert_eq!(admin.backed_up_at(), 0);
        let done = apply(&mut admin, &backup(NOTE_DONE)).timestamp;
        apply(&mut admin, &backup("broken off"));
        apply(&mut admin, &note("leader move"));
        assert_eq!(admin.backed_up_at(), done);
        let again = apply(&mut admin, &backup(NOTE_DONE)).timestamp;
        assert_eq!(admin.backed_up_at(), again);
    }

    #[test]
    fn of_what_was_flushed_before_backups_were_noted_there_is_none() {
        // AdminState as it was: version 2, one record, its hash, no token.
        let flushed = [&[0x08, 2, 0x10, 1, 0x1a, 32][..], &[7; 32]].concat();
        let mut admin = Admin::decode(&flushed).expect("it is read as it was written");
        assert_eq!((admin.version(), admin.records_count(), admin.last_hash()), (2, 1, [7; 32]));
        assert_eq!(admin.backed_up_at(), 0);
        assert_eq!(admin.encode(), flushed, "nor does anything else of it change");
        apply(&mut admin, &backup(NOTE_DONE));
        assert_eq!(Admin::decode(&admin.encode()).unwrap().backed_up_at(), admin.backed_up_at());
        assert!(admin.backed_up_at() > 0);
    }

    #[test]
    fn what_is_no_command_is_malformed() {
        let mut admin = Admin::default();
        assert!(admin.apply(1, 1, b"\xff\xff", VERSION_MAX).is_err());
        assert!(admin.apply(1, 1, &AdminCommand::default().encode_to_vec(), VERSION_MAX).is_err());
        assert_eq!(admin, Admin::default());
    }

    #[test]
    fn the_state_comes_back_without_the_trail() {
        let mut admin = Admin::default();
        apply(&mut admin, &token("shop"));
        assert_eq!(admin.freeze().len(), 1);
        apply(&mut admin, &note("later"));
        admin.forget_frozen();
        assert_eq!(admin.recent_from(1).map(|record| record.number).collect::<Vec<_>>(), [2]);
        assert_eq!(admin.freeze().len(), 1);
        admin.forget_frozen();
        assert_eq!(Admin::decode(&admin.encode()), Some(admin));
    }
}
