//! Where a local cluster lives: one folder, with everything it needs to be found and started again.
//!
//! ```text
//!     jangbu-dev/
//!       certs/                authorities, and what they signed; without it the nodes speak in plain text
//!       cluster.toml          the nodes, their ports, the program they run
//!       node-1/config.toml    jangbud's settings
//!       node-1/data/          all it keeps
//!       node-1/log            what it says
//!       node-1/pid            the process, while it runs
//! ```
//!
//! Laws
//! * A folder is made in one step: `cluster.toml` is written last, so a half-made folder is never taken for a cluster.
//! * Ports are chosen once; a restarted node is found where it was.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::Mark;
use crate::access::{self, Papers, Way};
use crate::cert::{self, make::Files};
use crate::error::{During as _, Failure, Kind};
use crate::whole;

pub const DEFAULT: &str = "jangbu-dev";
const DESCRIPTION: &str = "cluster.toml";

/// A local cluster, as `cluster.toml` describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Folder {
    #[serde(skip)]
    pub path: PathBuf,
    /// The program that the nodes run.
    pub jangbud: PathBuf,
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub id: u64,
    pub data_center: String,
    /// host:port of each door.
    pub client: String,
    pub peer: String,
    pub http: String,
}

/// What a new cluster should be.
pub struct Wish<'a> {
    pub nodes_count: usize,
    pub data_centers: &'a [String],
    pub jangbud: PathBuf,
    pub network: &'a str,
    /// More settings for each node's file: `section.key` and value.
    pub settings: &'a [(String, String)],
    /// Without TLS.
    pub plain: bool,
}

/// The cluster's name in its certificates.
const CLUSTER: &str = "dev";

impl Folder {
    /// `None` where there is no cluster in `path`.
    pub fn open(path: &Path) -> Result<Option<Folder>, Failure> {
        let text = match fs::read_to_string(path.join(DESCRIPTION)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).during(|| path.join(DESCRIPTION).display().to_string()),
        };
        let folder: Folder = toml::from_str(&text).map_err(|error| {
            Failure::general(format!("{}: {error}", path.join(DESCRIPTION).display()))
                .advise("remove the folder and start anew: jangbu dev start")
        })?;
        let path = fs::canonicalize(path).during(|| path.display().to_string())?;
        Ok(Some(Folder { path, ..folder }))
    }

    pub fn existing(path: &Path) -> Result<Folder, Failure> {
        Folder::open(path)?.ok_or_else(|| {
            Failure::new(Kind::Usage, format!("there is no cluster in {}", path.display()))
                .advise("make one with `jangbu dev start`, or name its folder with --dir")
        })
    }

    pub fn create(path: &Path, wish: &Wish) -> Result<Folder, Failure> {
        fs::create_dir_all(path).during(|| path.display().to_string())?;
        let path = fs::canonicalize(path).during(|| path.display().to_string())?;
        let mut ports = free_ports(wish.nodes_count * 3).during(|| "looking for free ports".into())?.into_iter();
        let mut address = || format!("127.0.0.1:{}", ports.next().expect("three ports for each node"));
        let nodes = (1..=wish.nodes_count)
            .map(|id| Node {
                id: id as u64,
                data_center: wish.data_centers[(id - 1) % wish.data_centers.len()].clone(),
                client: address(),
                peer: address(),
                http: address(),
            })
            .collect();
        let folder = Folder { path, jangbud: wish.jangbud.clone(), nodes };
        for node in &folder.nodes {
            folder.write_config(node, wish)?;
        }
        if !wish.plain {
            folder.make_certs()?;
        }
        let text = toml::to_string(&folder).expect("a folder is plain data");
        whole::replace(&folder.path.join(DESCRIPTION), text.as_bytes(), 0o644)
            .during(|| folder.path.join(DESCRIPTION).display().to_string())?;
        Ok(folder)
    }

    /// Also where an attempt before was cut off while it made them.
    fn make_certs(&self) -> Result<(), Failure> {
        let (certs, making) = (self.certs(), self.path.join("certs.making"));
        if certs.exists() {
            return Err(Failure::new(Kind::Conflict, format!("{} is there, and no cluster", certs.display()))
                .advise("remove it if nothing needs it, or name another folder with --dir"));
        }
        match fs::remove_dir_all(&making) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).during(|| making.display().to_string());
            }
            _ => {}
        }
        cert::for_this_machine(&making, CLUSTER, self.nodes.iter().map(|node| node.id))?;
        fs::rename(&making, &certs).during(|| certs.display().to_string())
    }

    /// With all its data. What says that there is a cluster goes last: broken off, it is typed again.
    pub fn remove(&self) -> Result<(), Failure> {
        let failed = || self.path.display().to_string();
        for entry in fs::read_dir(&self.path).during(failed)? {
            let entry = entry.during(failed)?;
            let path = entry.path();
            match entry.file_type().during(failed)?.is_dir() {
                true => fs::remove_dir_all(&path).during(|| path.display().to_string())?,
                false if path.ends_with(DESCRIPTION) => {}
                false => fs::remove_file(&path).during(|| path.display().to_string())?,
            }
        }
        fs::remove_dir_all(&self.path).during(failed)
    }

    pub fn config_path(&self, node: &Node) -> PathBuf {
        self.node_path(node).join("config.toml")
    }

    pub fn log_path(&self, node: &Node) -> PathBuf {
        self.node_path(node).join("log")
    }

    pub fn pid_path(&self, node: &Node) -> PathBuf {
        self.node_path(node).join("pid")
    }

    pub fn node_path(&self, node: &Node) -> PathBuf {
        self.path.join(format!("node-{}", node.id))
    }

    fn certs(&self) -> PathBuf {
        self.path.join("certs")
    }

    /// What makes `jangbu` somebody to this cluster; empty where it speaks in plain text.
    pub fn papers(&self) -> Papers {
        let certs = self.certs();
        if !certs.exists() {
            return Papers::default();
        }
        let own = Files::client(&certs, cert::DEV_CLIENT);
        Papers {
            ca: Some(Files::client_authority(&certs).certificate),
            cert: Some(own.certificate),
            key: Some(own.key),
            token_file: None,
        }
    }

    /// How its nodes are reached.
    pub fn way(&self) -> Result<Way, Failure> {
        Ok(self.papers().way()?.unwrap_or_else(access::plain))
    }

    /// The node's process, if it runs.
    pub fn process(&self, node: &Node) -> Option<Mark> {
        Mark::running(&self.pid_path(node), &self.config_path(node).to_string_lossy())
    }

    pub fn client_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    pub fn peer_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.peer.clone()).collect()
    }

    /// By its number or by its data centre's name.
    pub fn node(&self, name: &str) -> Result<&Node, Failure> {
        let found = self.nodes.iter().find(|node| node.id.to_string() == name || node.data_center == name);
        found.ok_or_else(|| {
            let known: Vec<String> =
                self.nodes.iter().map(|node| format!("{} ({})", node.id, node.data_center)).collect();
            Failure::usage(format!("there is no node `{name}`")).advise(format!("the nodes are: {}", known.join(", ")))
        })
    }

    fn write_config(&self, node: &Node, wish: &Wish) -> Result<(), Failure> {
        let mut config = toml::Table::new();
        let data_dir = self.node_path(node).join("data");
        let settings = [
            ("node_id", node.id.to_string()),
            ("data_dir", data_dir.display().to_string()),
            ("data_center", node.data_center.clone()),
            ("network", wish.network.to_string()),
            ("listen.client", node.client.clone()),
            ("listen.peer", node.peer.clone()),
            ("listen.http", node.http.clone()),
        ];
        let tls = self.tls(node, wish.plain);
        let own = settings.iter().chain(&tls).map(|(key, value)| (*key, value.as_str()));
        for (key, value) in own.chain(wish.settings.iter().map(|(key, value)| (key.as_str(), value.as_str()))) {
            set(&mut config, key, value);
        }
        fs::create_dir_all(&data_dir).during(|| data_dir.display().to_string())?;
        let path = self.config_path(node);
        whole::replace(&path, config.to_string().as_bytes(), 0o644).during(|| path.display().to_string())
    }
}

impl Folder {
    fn tls(&self, node: &Node, plain: bool) -> Vec<(&'static str, String)> {
        if plain {
            return vec![("tls.mode", "off".into())];
        }
        let certs = self.certs();
        let (client, peer) = (Files::node_to_clients(&certs, node.id), Files::node_to_peers(&certs, node.id));
        let path = |path: PathBuf| path.display().to_string();
        vec![
            ("tls.mode", "on".into()),
            ("tls.cluster", CLUSTER.into()),
            // Whoever has a token needs none; whoever has neither may only ask whether the node serves.
            ("tls.client_certificates", "optional".into()),
            ("tls.client.certificate", path(client.certificate)),
            ("tls.client.key", path(client.key)),
            ("tls.client.authority", path(Files::client_authority(&certs).certificate)),
            ("tls.peer.certificate", path(peer.certificate)),
            ("tls.peer.key", path(peer.key)),
            ("tls.peer.authority", path(Files::peer_authority(&certs).certificate)),
        ]
    }
}

/// Puts a value under a dotted key: as a number or a truth value where it reads as one.
fn set(table: &mut toml::Table, key: &str, value: &str) {
    match key.split_once('.') {
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| toml::Table::new().into());
            if let Some(inner) = inner.as_table_mut() {
                set(inner, rest, value);
            }
        }
        None => {
            let value = match (value.parse::<i64>(), value.parse::<bool>()) {
                (Ok(number), _) => number.into(),
                (_, Ok(truth)) => truth.into(),
                _ => value.into(),
            };
            table.insert(key.to_string(), value);
        }
    }
}

/// Below the range from which the system takes ports for outgoing connections (32,768 and up): while a node is down,
/// no connection may be given its port.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// From a random place on, so that clusters started at the same moment look in different places. All are held until
/// the last is found, so that no two are the same.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let first = rand::random_range(PORTS);
    let candidates = (first..PORTS.end).chain(PORTS.start..first);
    let held: Vec<(u16, TcpListener)> =
        candidates.filter_map(|port| Some((port, TcpListener::bind(("127.0.0.1", port)).ok()?))).take(count).collect();
    if held.len() < count {
        return Err(io::Error::other(format!("fewer than {count} free ports from {PORTS:?}")));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_found_again_as_it_was_made() {
        let path = std::env::temp_dir().join(format!("jangbu-folder-{}", std::process::id()));
        assert!(Folder::open(&path).unwrap().is_none());
        let made = Folder::create(
            &path,
            &Wish {
                nodes_count: 3,
                data_centers: &["seoul".to_string(), "busan".to_string()],
                jangbud: "jangbud".into(),
                network: "loopback",
                settings: &[("limits.requests_max".into(), "7".into())],
                plain: false,
            },
        )
        .unwrap();
        let found = Folder::existing(&path).unwrap();
        assert_eq!(found.client_addresses(), made.client_addresses());
        assert_eq!(found.node("busan").unwrap().id, 2);
        assert_eq!(found.node("3").unwrap().data_center, "seoul");
        assert!(found.node("osaka").is_err());
        let config: toml::Table = fs::read_to_string(found.config_path(&found.nodes[0])).unwrap().parse().unwrap();
        assert_eq!(config["limits"]["requests_max"].as_integer(), Some(7));
        assert_eq!(config["listen"]["client"].as_str(), Some(found.nodes[0].client.as_str()));
        fs::remove_dir_all(path).unwrap();
    }
}
