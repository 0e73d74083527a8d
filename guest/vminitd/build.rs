//! Compiles `proto/firkin/agent.proto` (protox, so that no `protoc` is needed) and hashes it for the handshake.

use std::path::{Path, PathBuf};
use std::{env, fs};

use sha2::{Digest, Sha256};

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let schema = folder.join("firkin/agent.proto");
    println!("cargo::rerun-if-changed={}", schema.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let files = protox::compile(["firkin/agent.proto"], [&folder]).expect("the schema compiles");
    prost_build::Config::new()
        .btree_map(["."])
        .disable_comments(["."])
        .out_dir(&out)
        .compile_fds(files)
        .expect("the messages are written");
    let digest = Sha256::digest(fs::read(&schema).expect("the schema is there"));
    fs::write(out.join("schema_hash"), &digest[..16]).expect("the hash is written");
}
