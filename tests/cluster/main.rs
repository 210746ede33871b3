//! The shipped binaries, as a user meets them: one module per promise.
//!
//!     failover      a node that dies or stands still is not missed for longer than a blink
//!     durability    what a disk does to a node stays that node's trouble
//!     idempotency   a transfer id has at most one effect, however often and wherever it is asked
//!     membership    nodes come, go, are replaced, and are never taken for another
//!     growing       a cluster grows, shrinks and moves, and no client notices
//!     doors         what makes no sense is refused by name, and harms nobody
//!     access        who belongs is let in, and does what was granted; nobody else, nothing else
//!     hostile       callers that mean harm are cut off, and nobody else notices
//!     shutdown      a node that is told to stop finishes, hands over and goes
//!     service       whoever starts it and reads its log is told the truth, and never waited for
//!     traces        whoever follows one call finds its way, and nobody waits for whoever follows
//!     streams       the packed stream keeps the same promises
//!     time          log time decides what expires, and never runs backwards
//!     command       the operator's command tells what is true
//!     newcomer      a newcomer's commands, as they are typed
//!     interrupted   commands that are broken off end at once, say what is done, and go on when they are typed again
//!     in_flight     …also while what they asked for is under way, of which they don't know the outcome
//!     backup        what was backed up comes back with the digest that it had, or is refused by name
//!     export        what is exported is of one moment, and comes back with the same balances
//!     recover       when a majority is lost for good, a survivor goes on with all that it has
//!     inspect       what lies in a stopped node's folder is told, and left alone; what runs is shown
//!     verdict       the judge of all these tests is not blind
//!
//! Nearly every test ends with the same verdict (`judge`): no acknowledged payment lost, none doubled, all replicas equal.
//!
//! Real processes, disks and connections cost seconds, so there are few tests here. What can be shown in one room is
//! shown in that room, and what depends on rare timing in the simulation.

mod access;
mod backup;
mod command;
mod doors;
mod durability;
mod export;
mod failover;
mod growing;
mod hostile;
mod idempotency;
mod in_flight;
mod inspect;
mod interrupted;
mod membership;
mod newcomer;
mod recover;
mod service;
mod shutdown;
mod streams;
mod time;
mod traces;
mod verdict;
