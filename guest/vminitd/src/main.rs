//! `vminitd`: PID 1 of a Firkin VM, and the agent behind the guest link (docs/protocol.md, docs/internals.md).
//!
//! One thread on epoll, without a runtime: under software emulation every code path costs its translation, in every clone
//! anew.

// The runtime's start wants standard descriptors, which a VM without a console does not give its first process.
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code, unused_imports))]

mod agent;
mod boot;
mod call;
mod console;
mod container;
mod copy;
mod dispatch;
mod events;
mod failure;
mod files;
mod guest_root;
mod helper;
mod lifecycle;
mod messages;
mod mounts;
mod names;
mod netlink;
mod network;
mod output;
mod parked;
mod process;
mod relay;
mod slab;
mod sockets;
mod spawn;
mod statistics;
mod stdio;
mod sys;
mod testing;
mod watch;

use agent::Agent;
use console::log;
use failure::Result;

const PORT_NAME: &str = "firkin.agent";

/// What the kernel starts. There is nobody to return to: when PID 1 ends the kernel panics, and QEMU with it.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn main() -> i32 {
    match start() {
        Ok(mut agent) => agent.run(),
        Err(failure) => {
            log(&format!("boot failed: {}: {}", failure.stage, failure.message));
            1
        }
    }
}

fn start() -> Result<Agent> {
    std::panic::set_hook(Box::new(|reason| log(&reason.to_string())));
    boot::boot()?;
    let agent = Agent::new(boot::open_port(PORT_NAME)?)?;
    log("ready");
    Ok(agent)
}
