//! Compiles the three wire contracts to Rust, without `protoc`, and keeps their descriptors for reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const CLIENT_CONTRACTS: &[&str] = &["jangbu/v1/ledger.proto", "cluster/v1/operator.proto", "cluster/v1/admin.proto"];
const PEER_CONTRACTS: &[&str] = &["cluster/v1/peer.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    // protox doesn't tell Cargo what it read.
    println!("cargo:rerun-if-changed=build.rs");
    for contract in CLIENT_CONTRACTS.iter().chain(PEER_CONTRACTS) {
        println!("cargo:rerun-if-changed={contract}");
    }

    // Each door tells by reflection what is served behind it, and no more.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("client_door.bin"), protox::compile(CLIENT_CONTRACTS, ["."])?.encode_to_vec())?;
    fs::write(out.join("peer_door.bin"), protox::compile(PEER_CONTRACTS, ["."])?.encode_to_vec())?;

    let all = protox::compile(CLIENT_CONTRACTS.iter().chain(PEER_CONTRACTS), ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(all)?;
    Ok(())
}
