//! What `ops/deploy` says of the program is what the program does.

use std::{fs, path::Path, time::Duration};

use jangbu_node::{NodeConfig, health::PROOF_LIMIT};
use yaml_rust2::{Yaml, YamlLoader};

fn deployed(path: &str) -> String {
    let path = Path::new("../ops/deploy").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

struct Manifests(Vec<Yaml>);

impl Manifests {
    fn read() -> Self {
        Self(YamlLoader::load_from_str(&deployed("kubernetes/jangbu.yaml")).expect("this is YAML"))
    }

    fn object(&self, kind: &str, name: &str) -> &Yaml {
        let found = self
            .0
            .iter()
            .find(|object| object["kind"].as_str() == Some(kind) && object["metadata"]["name"].as_str() == Some(name));
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    fn pod(&self) -> &Yaml {
        &self.object("StatefulSet", "jangbu")["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Yaml {
        &self.pod()["containers"][0]
    }

    /// As `jangbud` reads it in the pod of that number.
    fn config(&self, number: u64) -> NodeConfig {
        let toml = self.object("ConfigMap", "jangbu")["data"]["node.toml"].as_str().expect("a file");
        let pod_name = format!("jangbu-{number}");
        let environment = self.container()["env"].as_vec().expect("variables").iter().map(|variable| {
            let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
            let value = match (variable["value"].as_str(), field) {
                (Some(value), None) => {
                    value.replace("$(POD_NAME)", &pod_name).replace("$(JANGBU__NODE_ID)", &number.to_string())
                }
                (None, Some("metadata.name")) => pod_name.clone(),
                (None, Some("metadata.labels['apps.kubernetes.io/pod-index']")) => number.to_string(),
                other => panic!("where does {variable:?} come from? {other:?}"),
            };
            (variable["name"].as_str().expect("a name").to_owned(), value)
        });
        NodeConfig::read(toml, environment, []).expect("the program takes this configuration")
    }
}

#[test]
fn in_kubernetes_each_pod_is_a_node_of_its_own_that_its_peers_can_find() {
    let manifests = Manifests::read();
    let set = &manifests.object("StatefulSet", "jangbu")["spec"];
    let first = set["ordinals"]["start"].as_i64().expect("a number") as u64;
    for number in first..first + set["replicas"].as_i64().expect("a number") as u64 {
        let config = manifests.config(number);
        assert_eq!(config.node_id, number, "0 is no node's id");
        let service = set["serviceName"].as_str().expect("a name");
        assert_eq!(config.advertise.peer, Some(format!("jangbu-{number}.{service}:7401")));
        assert_eq!(config.advertise.client, Some(format!("jangbu-{number}.{service}:7400")));
        // As `jangbu cert` names them.
        let peer = config.tls.peer.expect("it proves who it is");
        assert_eq!(peer.certificate, Path::new(&format!("/etc/jangbu-tls/node-{number}-peer.crt")));
    }
    let peers = &manifests.object("Service", "jangbu-peers")["spec"];
    assert_eq!(peers["clusterIP"].as_str(), Some("None"));
    assert_eq!(peers["publishNotReadyAddresses"].as_bool(), Some(true), "peers must find each other to become ready");
    assert_eq!(set["podManagementPolicy"].as_str(), Some("Parallel"), "none is ready alone");
}

#[test]
fn in_kubernetes_the_doors_are_where_the_node_listens_and_its_data_where_the_volume_is() {
    let manifests = Manifests::read();
    let (config, container) = (manifests.config(1), manifests.container());
    let ports = container["ports"].as_vec().expect("ports");
    let ports: Vec<(&str, String)> = ports
        .iter()
        .map(|port| (port["name"].as_str().expect("a name"), port["containerPort"].as_i64().expect("a port")))
        .map(|(name, port)| (name, format!("0.0.0.0:{port}")))
        .collect();
    let http = config.listen.http.expect("an HTTP door");
    assert_eq!(ports, [("client", config.listen.client), ("peer", config.listen.peer), ("http", http)]);
    let mounts = container["volumeMounts"].as_vec().expect("mounts");
    let volume = mounts.iter().find(|mount| mount["name"].as_str() == Some("data")).expect("a volume");
    assert!(config.data_dir.starts_with(volume["mountPath"].as_str().expect("a path")));
}

#[test]
fn in_kubernetes_only_readiness_asks_other_nodes_and_nobody_is_cut_off_while_draining() {
    let manifests = Manifests::read();
    let (config, container) = (manifests.config(1), manifests.container());
    for (probe, path) in [("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"].as_str(), Some(path), "{probe}");
        assert_eq!(container[probe]["httpGet"]["port"].as_str(), Some("http"), "{probe}");
    }
    let seconds = |value: &Yaml| Duration::from_secs(value.as_i64().expect("seconds") as u64);
    let patience = seconds(&container["readinessProbe"]["timeoutSeconds"]);
    assert!(patience > PROOF_LIMIT, "who asks must hear the answer");
    let grace = seconds(&manifests.pod()["terminationGracePeriodSeconds"]);
    assert!(grace >= config.limits.drain_max() + Duration::from_secs(10), "{grace:?}");
    let budget = &manifests.object("PodDisruptionBudget", "jangbu")["spec"];
    assert_eq!(budget["maxUnavailable"].as_i64(), Some(1));
    for (holder, selected) in [
        (budget, &budget["selector"]["matchLabels"]),
        (manifests.object("Service", "jangbu"), &manifests.object("Service", "jangbu")["spec"]["selector"]),
    ] {
        let labels = &manifests.object("StatefulSet", "jangbu")["spec"]["template"]["metadata"]["labels"];
        assert_eq!(selected, labels, "{holder:?} selects the pods");
    }
}

#[test]
fn systemd_hears_of_the_node_and_waits_for_its_drain() {
    let unit = deployed("systemd/jangbud.service");
    let setting = |name: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} is missing"))
    };
    assert_eq!(setting("Type"), "notify");
    assert_eq!(setting("RestartPreventExitStatus"), "2", "a wrong configuration doesn't mend itself");
    assert!(setting("WatchdogSec").parse::<u64>().expect("seconds") >= 10);
    let config = NodeConfig::read(include_str!("../../jangbud.example.toml"), [], []).expect("the example is good");
    let patience = Duration::from_secs(setting("TimeoutStopSec").parse().expect("seconds"));
    assert!(patience >= config.limits.drain_max() + Duration::from_secs(10), "{patience:?}");
    assert_eq!(config.data_dir, Path::new("/var/lib").join(setting("StateDirectory")));
}

#[test]
fn the_image_starts_the_node_with_its_doors_and_its_folder() {
    let image = deployed("container/Containerfile");
    let config = NodeConfig::read(include_str!("../../jangbud.example.toml"), [], []).expect("the example is good");
    let http = config.listen.http.expect("an HTTP door");
    let ports =
        [config.listen.client, config.listen.peer, http].map(|address| address.split(':').nth(1).unwrap().to_owned());
    assert!(image.contains(&format!("EXPOSE {}", ports.join(" "))));
    assert!(image.contains(&format!("VOLUME {}", config.data_dir.display())));
    let rust = format!("rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
    assert!(image.contains(&rust), "built with {rust}");
}
