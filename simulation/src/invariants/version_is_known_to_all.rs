//! The cluster's version rises only to what every member's program knew at some moment while it was asked for. (Between that
//! moment and the entry a node may go back to an older program: it is then refused, and comes back with the newer one.)

use std::collections::BTreeMap;

use super::{Law, News, Program, Sighting};

/// A call that was cut off may go on at the leader for a moment.
const GRACE_NS: u64 = 200_000_000;

#[derive(Default)]
pub(super) struct VersionIsKnownToAll {
    /// By node id: what its program knew from when on; `None` while it was down.
    programs: BTreeMap<u64, Vec<(u64, Option<u32>)>>,
    /// When it was asked for, and until when the leader asked the members. The first is the making of the cluster.
    asked: Vec<(u64, u64)>,
    version: u32,
}

impl Law for VersionIsKnownToAll {
    fn name(&self) -> &'static str {
        "version_is_known_to_all"
    }

    fn hear(&mut self, news: &News) {
        match *news {
            News::Program(Program { at_ns, id, knows }) => {
                self.programs.entry(id).or_default().push((at_ns, knows));
            }
            News::FinalizeAsked { at_ns } => self.asked.push((at_ns, u64::MAX)),
            News::FinalizeOver { at_ns } => {
                if let Some(asked) = self.asked.last_mut() {
                    asked.1 = at_ns + GRACE_NS;
                }
            }
        }
    }

    fn see(&mut self, Sighting { at_ns, status, .. }: &Sighting) -> Option<String> {
        let version = status.cluster_version;
        if version <= self.version {
            return None;
        }
        self.version = version;
        let members: Vec<u64> =
            status.members.iter().filter_map(|member| Some(member.node.as_ref()?.node_id)).collect();
        let all_knew =
            |(from, to): &(u64, u64)| members.iter().all(|id| self.knew(*id, version, *from, *at_ns.min(to)));
        (!self.asked.iter().any(all_knew)).then(|| {
            format!("the version is {version}, and whenever it was asked for, one of {members:?} did not know it")
        })
    }
}

impl VersionIsKnownToAll {
    /// Whether a node's program knew a version at some moment between two.
    fn knew(&self, id: u64, version: u32, from: u64, to: u64) -> bool {
        let Some(programs) = self.programs.get(&id) else { return false };
        let ends = programs.iter().skip(1).map(|(at_ns, _)| *at_ns).chain([u64::MAX]);
        programs
            .iter()
            .zip(ends)
            .any(|((begin, knows), end)| knows.is_some_and(|knows| knows >= version) && *begin <= to && end >= from)
    }
}

#[cfg(test)]
mod tests {
    use jangbu_proto::cluster::v1::{MemberStatus, NodeInfo, StatusReply};

    use super::*;

    fn program(at_ns: u64, id: u64, knows: Option<u32>) -> News {
        News::Program(Program { at_ns, id, knows })
    }

    /// Two nodes; the second begins as an older program and is exchanged at 500, for a moment.
    fn law(asked_ns: u64) -> VersionIsKnownToAll {
        let mut law = VersionIsKnownToAll { version: 1, ..Default::default() };
        for news in [
            program(0, 1, Some(2)),
            program(0, 2, Some(1)),
            program(400, 2, None),
            program(500, 2, Some(2)),
            program(600, 2, None),
            program(700, 2, Some(1)),
            News::FinalizeAsked { at_ns: asked_ns },
            News::FinalizeOver { at_ns: asked_ns + 10 },
        ] {
            law.hear(&news);
        }
        law
    }

    fn raised(at_ns: u64) -> Sighting {
        let member = |node_id| MemberStatus {
            node: Some(NodeInfo { node_id, ..NodeInfo::default() }),
            ..MemberStatus::default()
        };
        let status = StatusReply { cluster_version: 2, members: vec![member(1), member(2)], ..StatusReply::default() };
        Sighting { at_ns, node: 0, life: 0, status }
    }

    #[test]
    fn all_must_have_known_it_when_it_was_asked_for() {
        assert_eq!(law(550).see(&raised(560)), None);
        assert_eq!(law(450).see(&raised(900)), None, "it came up while the question was on its way");
        assert!(law(100).see(&raised(300)).is_some(), "one did not know it yet");
        assert!(law(800).see(&raised(900)).is_some(), "one had gone back");
    }
}
