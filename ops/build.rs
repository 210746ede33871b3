//! Compiles what `jangbu bench` needs of etcd's API, without `protoc`. etcd's own client crate needs it to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const CONTRACT: &str = "proto/etcd.proto";
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={CONTRACT}");
    tonic_prost_build::configure().build_server(false).bytes(".").compile_fds(protox::compile([CONTRACT], ["."])?)?;
    Ok(())
}
