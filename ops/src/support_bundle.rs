//! `jangbu support-bundle`: what somebody else needs to see of a cluster that misbehaves, in one file, without its secrets.
//!
//! ```text
//!     README.txt                    what this is, and what could not be had
//!     cluster/{health,status}.json  as the nodes tell it
//!     node-1/{readyz,metrics}.txt   from its HTTP door
//!     node-1/config.toml            settings as they stand in its file, secrets struck out, comments gone
//!     node-1/log.txt                the end of what it said
//!     node-1/inspect.json           if it doesn't run: its log's newest entries, its vote, snapshots and state
//! ```
//!
//! Laws
//! * No secret is in it: settings are struck out by name, and lines by what they look like. No account and no transfer is in it.
//! * Whatever can't be had is named in the README; the rest is there all the same.
//!
//! Not here: sending it anywhere.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::Args;
use regex::{Captures, Regex};
use serde::Serialize;

use crate::cli::Global;
use crate::cluster::{self, Health};
use crate::dev::folder::{self, Folder};
use crate::error::{During as _, Failure};
use crate::inspect;
use crate::{clock, http, output, whole};

#[derive(Debug, Args)]
#[command(after_help = "On a machine with one node, name its files; the cluster in ./jangbu-dev is found by itself.

Examples:
  jangbu support-bundle
  jangbu support-bundle --config /etc/jangbu/node.toml --log /var/log/jangbu.log
  journalctl -u jangbud -n 5000 > node.log; jangbu support-bundle --log node.log --file /tmp/bundle.tar")]
pub struct Arguments {
    /// The file to write; it must not be there yet.
    #[arg(long, value_name = "FILE", default_value = "jangbu-support.tar")]
    pub file: PathBuf,
    /// A node's configuration. Its data_dir is looked into if no node has it open. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// A node's log. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub log: Vec<PathBuf>,
    /// How much of the end of each log, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub log_kib: u32,
}

/// The files of one node.
struct Source {
    name: String,
    config: Option<PathBuf>,
    log: Option<PathBuf>,
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    files: Vec<String>,
    could_not_be_had: Vec<String>,
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut bundle = Bundle::default();
        self.ask_cluster(global, &mut bundle).await;
        for Source { name, config, log } in self.sources()? {
            if let Some(config) = config {
                bundle.add_config(&name, &config);
            }
            if let Some(log) = log {
                bundle.add_log(&name, &log, u64::from(self.log_kib) << 10);
            }
        }
        let made = bundle.write(&self.file)?;
        output::show(global.output, &made, |made| {
            let missing = made.could_not_be_had.iter().map(|what| format!("\n- not in it: {what}"));
            format!("{}: {} files{}", made.file.display(), made.files.len(), missing.collect::<String>())
        })
    }

    async fn ask_cluster(&self, global: &Global, bundle: &mut Bundle) {
        let nodes = match cluster::ask_all(global).await {
            Ok(nodes) => nodes,
            Err(failure) => return bundle.lacks("what the nodes say", &failure.message),
        };
        bundle.add_json("cluster/status.json", &nodes);
        bundle.add_json("cluster/health.json", &Health::of(&nodes));
        for node in &nodes {
            let Some(status) = &node.status else {
                bundle.lacks(&node.endpoint, node.error.as_deref().unwrap_or("no answer"));
                continue;
            };
            let Some(address) = http::address(node) else {
                bundle.lacks(&format!("metrics of node {}", status.node_id), "it has no HTTP door");
                continue;
            };
            for (path, file) in [("/metrics", "metrics.txt"), ("/readyz?verbose", "readyz.txt")] {
                match http::get(&address, path, global.timeout).await {
                    Some((_, body)) => bundle.add(format!("node-{}/{file}", status.node_id), without_secrets(&body)),
                    None => bundle.lacks(&format!("http://{address}{path}"), "no answer"),
                }
            }
        }
    }

    /// Each node whose files are here.
    fn sources(&self) -> Result<Vec<Source>, Failure> {
        let mut sources = Vec::new();
        if self.config.is_empty()
            && self.log.is_empty()
            && let Some(folder) = Folder::open(Path::new(folder::DEFAULT))?
        {
            for node in &folder.nodes {
                let (config, log) = (folder.config_path(node), folder.log_path(node));
                sources.push(Source { name: format!("node-{}", node.id), config: Some(config), log: Some(log) });
            }
        }
        let named = |path: &Path| path.file_stem().map_or("file".into(), |stem| stem.to_string_lossy().into_owned());
        sources.extend(self.config.iter().map(|path| Source {
            name: format!("here/{}", named(path)),
            config: Some(path.clone()),
            log: None,
        }));
        sources.extend(self.log.iter().map(|path| Source {
            name: format!("here/{}", named(path)),
            config: None,
            log: Some(path.clone()),
        }));
        Ok(sources)
    }
}

#[derive(Default)]
struct Bundle {
    files: Vec<(String, String)>,
    lacks: Vec<String>,
}

impl Bundle {
    fn add(&mut self, name: String, content: String) {
        self.files.push((name, content));
    }

    fn add_json(&mut self, name: &str, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(json) => self.add(name.into(), without_secrets(&json)),
            Err(error) => self.lacks(name, &error.to_string()),
        }
    }

    fn lacks(&mut self, what: &str, why: &str) {
        // Many a reason begins with what it is about.
        let told = if why.starts_with(what) { why.to_string() } else { format!("{what}: {why}") };
        self.lacks.push(without_secrets(&told));
    }

    fn add_config(&mut self, name: &str, path: &Path) {
        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        // A parser's error shows the line that it can't read, which may be the one with the secret.
        let parsed = read.and_then(|text| text.parse::<toml::Table>().map_err(|_| "this is not TOML".to_string()));
        let mut table = match parsed {
            Ok(table) => table,
            Err(why) => return self.lacks(&path.display().to_string(), &why),
        };
        if let Some(data_dir) = table.get("data_dir").and_then(toml::Value::as_str) {
            self.add_inspection(name, Path::new(data_dir));
        }
        strike_out(&mut table);
        self.add(format!("{name}/config.toml"), without_secrets(&table.to_string()));
    }

    fn add_inspection(&mut self, name: &str, data_dir: &Path) {
        let what = data_dir.display().to_string();
        match Inspection::of(data_dir) {
            Ok(inspection) => self.add_json(&format!("{name}/inspect.json"), &inspection),
            Err(failure) => self.lacks(&what, &failure.message),
        }
    }

    fn add_log(&mut self, name: &str, path: &Path, bytes_max: u64) {
        match tail(path, bytes_max) {
            Ok(text) => self.add(format!("{name}/log.txt"), without_secrets(&text)),
            Err(error) => self.lacks(&path.display().to_string(), &error.to_string()),
        }
    }

    fn write(mut self, path: &Path) -> Result<Made, Failure> {
        let mut readme = format!(
            "A support bundle of jangbu {}. Settings that hold secrets are struck out; accounts and transfers are not in it.\n",
            env!("CARGO_PKG_VERSION")
        );
        readme.extend(self.lacks.iter().map(|what| format!("\nnot in it: {what}")));
        self.files.insert(0, ("README.txt".into(), readme));
        let mut archive = tar::Builder::new(Vec::new());
        let now = clock::now_ns() / 1_000_000_000;
        for (name, content) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(now);
            let added = archive.append_data(&mut header, format!("jangbu-support/{name}"), content.as_bytes());
            added.during(|| path.display().to_string())?;
        }
        let archive = archive.into_inner().during(|| path.display().to_string())?;
        whole::create(path, &archive, 0o600).map_err(|error| {
            Failure::usage(format!("{}: {error}", path.display())).advise("name another with --file, or remove it")
        })?;
        let files = self.files.into_iter().map(|(name, _)| name).collect();
        Ok(Made { file: path.to_path_buf(), files, could_not_be_had: self.lacks })
    }
}

#[derive(Serialize)]
struct Inspection {
    log: inspect::Log,
    vote: inspect::Voted,
    snapshots: Vec<inspect::Snapshot>,
    state: inspect::State,
}

impl Inspection {
    fn of(data_dir: &Path) -> Result<Inspection, Failure> {
        let inspector = inspect::open(&inspect::Folder { dir: data_dir.to_path_buf() })?;
        Ok(Inspection {
            log: inspect::Log::newest(&inspector, 50)?,
            vote: inspect::Voted::read(&inspector)?,
            snapshots: inspect::snapshots(&inspector)?,
            state: inspect::State::read(&inspector)?,
        })
    }
}

/// The end of a file, from the beginning of a line on.
fn tail(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, whole_lines)) if length > bytes_max => whole_lines.to_string(),
        _ => text,
    })
}

const STRUCK_OUT: &str = "(struck out)";

/// Names that say "secret". The path of a file that holds one is none itself.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let says_so =
        ["secret", "password", "passphrase", "token", "credential", "key"].iter().any(|word| name.contains(word));
    let is_path = ["_file", "_path", "_dir"].iter().any(|end| name.ends_with(end));
    says_so && !is_path
}

/// Strikes out each value under a name that says "secret", and all below it.
fn strike_out(table: &mut toml::Table) {
    for (name, value) in table.iter_mut() {
        match value {
            _ if is_secret(name) => *value = STRUCK_OUT.into(),
            toml::Value::Table(inner) => strike_out(inner),
            toml::Value::Array(values) => {
                values.iter_mut().filter_map(toml::Value::as_table_mut).for_each(strike_out);
            }
            _ => {}
        }
    }
}

/// Strikes out of a text what looks like a secret: private keys, bearer tokens, and values whose names say so, as
/// `name=value`, `name: value` or `"name":"value"`.
fn without_secrets(text: &str) -> String {
    static PATTERNS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
        [
            r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
            r"(?i)\b(bearer\s+)[^\s\x22,}]+",
            // A value in quotes, which may be escaped or cut off; or up to the next space. What opens a list of names is none.
            r#"(?i)([\w.-]*(?:secret|password|passphrase|token|credential|key)[\w.-]*)(\\?"?\s*[=:]\s*)(\\?"[^"\n]*"?|'[^'\n]*'?|[^\s,}&{\["'][^\s,}&]*)"#,
        ]
        .map(|pattern| Regex::new(pattern).expect("a pattern of ours"))
    });
    let [private_key, bearer, named] = &*PATTERNS;
    let text = private_key.replace_all(text, STRUCK_OUT);
    let text = bearer.replace_all(&text, |found: &Captures<'_>| format!("{}{STRUCK_OUT}", &found[1]));
    let struck = named.replace_all(&text, |found: &Captures<'_>| match is_secret(&found[1]) {
        true => format!("{}{}{STRUCK_OUT}", &found[1], &found[2]),
        false => found[0].to_string(),
    });
    struck.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_struck_out_of_a_text() {
        for line in [
            "authorization: Bearer HUSH",
            "Authorization: bearer HUSH, and more",
            "{\"fields\":{\"token\":\"HUSH\",\"node\":1}}",
            "INFO token=HUSH user=kim",
            "password = HUSH",
            "api_key: HUSH",
            "\"client_secret\": \"HUSH\"",
            "-----BEGIN PRIVATE KEY-----\nHUSH\n-----END PRIVATE KEY-----\n",
            "-----BEGIN EC PRIVATE KEY-----HUSH-----END EC PRIVATE KEY-----",
            "cut off in the middle: -----BEGIN PRIVATE KEY-----\nHUSH",
            "{\"message\":\"said Bearer HUSH\"}",
            "{\"message\":\"was told {\\\"token\\\":\\\"HUSH\\\"}\"}",
            "cut off: \"token\":\"HUSH",
            "password='HUSH HUSH'",
        ] {
            let kept = without_secrets(line);
            assert!(!kept.contains("HUSH"), "{line} became {kept}");
            assert!(kept.contains(STRUCK_OUT), "{line} became {kept}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_as_it_was() {
        for line in [
            "2026-11-23T01:02:03Z INFO jangbu_node::leadership: leadership term=3 leader=1\n",
            "{\"level\":\"INFO\",\"fields\":{\"message\":\"serving\",\"node_id\":1}}\n",
            "key_file = \"/etc/jangbu/node.key\"\n",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "",
            "no line's end",
        ] {
            assert_eq!(without_secrets(line), line);
        }
    }

    #[test]
    fn settings_are_struck_out_by_name_and_comments_are_gone() {
        let mut table: toml::Table =
            "# hush\n[tls]\nkey_file = \"/k\"\nkey = \"HUSH\"\n[[users]]\nname = \"kim\"\ntoken_hash = \"HUSH\"\n"
                .parse()
                .unwrap();
        strike_out(&mut table);
        let kept = table.to_string();
        assert!(!kept.to_lowercase().contains("hush"), "{kept}");
        assert!(kept.contains("/k") && kept.contains("kim"), "{kept}");
    }

    #[test]
    fn a_log_is_cut_at_the_beginning_of_a_line() {
        let path = std::env::temp_dir().join(format!("jangbu-tail-{}", std::process::id()));
        std::fs::write(&path, "first\nsecond\nthird\n").unwrap();
        assert_eq!(tail(&path, 8).unwrap(), "third\n");
        assert_eq!(tail(&path, 100).unwrap(), "first\nsecond\nthird\n");
        std::fs::remove_file(path).unwrap();
    }
}
