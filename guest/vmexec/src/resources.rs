//! `linux.resources` as the cgroup v2 files that hold it. Pure; `cgroup.rs` writes them.
//!
//! Conversions are those of the runtime specification's "cgroup v2" notes and of crun(1): shares to weight linearly,
//! memory+swap to swap alone. `devices` needs a BPF program in cgroup v2 and decides nothing in a VM of one owner:
//! it is read over, as docs/decisions/vmexec.md says.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::failure::{Failure, Result};

/// `linux.resources`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: Option<Pids>,
    #[serde(rename = "blockIO")]
    pub block_io: BlockIo,
    pub hugepage_limits: Vec<Hugepages>,
    pub rdma: BTreeMap<String, Rdma>,
    pub unified: BTreeMap<String, String>,
}

/// `cpu`; times in microseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cpu {
    pub shares: u64,
    pub quota: Option<i64>,
    pub period: Option<u64>,
    pub burst: Option<u64>,
    pub idle: Option<i64>,
    pub cpus: String,
    pub mems: String,
}

/// `memory`; bytes, -1 is no limit.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    pub swap: Option<i64>,
}

/// `pids`.
#[derive(Debug, Deserialize)]
pub struct Pids {
    pub limit: i64,
}

/// `blockIO`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockIo {
    pub weight: Option<u16>,
    pub weight_device: Vec<WeightDevice>,
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// A block device's weight, 10 to 1000.
#[derive(Debug, Deserialize)]
pub struct WeightDevice {
    pub major: u32,
    pub minor: u32,
    pub weight: Option<u16>,
}

/// A block device's limit, in bytes or operations a second.
#[derive(Debug, Deserialize)]
pub struct ThrottleDevice {
    pub major: u32,
    pub minor: u32,
    pub rate: u64,
}

/// One of `hugepageLimits`; `limit` in bytes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hugepages {
    pub page_size: String,
    pub limit: u64,
}

/// One of `rdma`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rdma {
    pub hca_handles: Option<u32>,
    pub hca_objects: Option<u32>,
}

/// A file of the cgroup and what to write to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    pub file: String,
    pub value: String,
    /// To be written where the kernel does not have that file.
    pub otherwise: Option<Box<Setting>>,
}

impl Resources {
    /// The writes that make a fresh cgroup so, in order; `unified` last, because it wins.
    pub fn settings(&self) -> Result<Vec<Setting>> {
        let mut list = Vec::new();
        self.cpu.settings(&mut list);
        self.memory.settings(&mut list)?;
        if let Some(pids) = &self.pids {
            list.push(setting("pids.max", if pids.limit > 0 { pids.limit.to_string() } else { "max".into() }));
        }
        self.block_io.settings(&mut list);
        for pages in &self.hugepage_limits {
            plain_name(&pages.page_size)?;
            list.push(setting(&format!("hugetlb.{}.max", pages.page_size), pages.limit.to_string()));
        }
        for (device, limit) in &self.rdma {
            let text = |n: Option<u32>| n.map_or("max".to_string(), |n| n.to_string());
            let value =
                format!("{device} hca_handle={} hca_object={}", text(limit.hca_handles), text(limit.hca_objects));
            list.push(setting("rdma.max", value));
        }
        for (file, value) in &self.unified {
            plain_name(file)?;
            list.push(setting(file, value.clone()));
        }
        Ok(list)
    }
}

impl Cpu {
    fn settings(&self, list: &mut Vec<Setting>) {
        if self.shares > 0 {
            list.push(setting("cpu.weight", weight_of_shares(self.shares).to_string()));
        }
        if self.quota.is_some() || self.period.is_some() {
            let quota = self.quota.filter(|q| *q > 0).map_or("max".to_string(), |q| q.to_string());
            list.push(setting("cpu.max", format!("{quota} {}", self.period.unwrap_or(100_000))));
        }
        if let Some(burst) = self.burst {
            list.push(setting("cpu.max.burst", burst.to_string()));
        }
        if let Some(idle) = self.idle {
            list.push(setting("cpu.idle", idle.to_string()));
        }
        for (file, value) in [("cpuset.cpus", &self.cpus), ("cpuset.mems", &self.mems)] {
            if !value.is_empty() {
                list.push(setting(file, value.clone()));
            }
        }
    }
}

impl Memory {
    fn settings(&self, list: &mut Vec<Setting>) -> Result<()> {
        // memory.swap.max counts swap alone, the specification's swap counts memory too.
        if let Some(swap) = self.swap.filter(|s| *s != 0) {
            let value = match self.limit {
                _ if swap < 0 => "max".to_string(),
                Some(limit) if limit >= 0 && swap >= limit => (swap - limit).to_string(),
                Some(limit) if limit >= 0 => {
                    return Err(Failure::invalid("cgroup", format!("memory swap {swap} is below its limit {limit}")));
                }
                _ => return Err(Failure::invalid("cgroup", "memory swap without a memory limit".into())),
            };
            list.push(setting("memory.swap.max", value));
        }
        for (file, bytes) in [("memory.max", self.limit), ("memory.low", self.reservation)] {
            if let Some(bytes) = bytes.filter(|b| *b != 0) {
                list.push(setting(file, if bytes < 0 { "max".into() } else { bytes.to_string() }));
            }
        }
        Ok(())
    }
}

impl BlockIo {
    fn settings(&self, list: &mut Vec<Setting>) {
        if let Some(weight) = self.weight.filter(|w| *w > 0) {
            list.push(weighing("default", weight));
        }
        for device in &self.weight_device {
            if let Some(weight) = device.weight {
                list.push(weighing(&format!("{}:{}", device.major, device.minor), weight));
            }
        }
        for (key, devices) in [
            ("rbps", &self.throttle_read_bps_device),
            ("wbps", &self.throttle_write_bps_device),
            ("riops", &self.throttle_read_iops_device),
            ("wiops", &self.throttle_write_iops_device),
        ] {
            for device in devices {
                let value = format!("{}:{} {key}={}", device.major, device.minor, device.rate);
                list.push(setting("io.max", value));
            }
        }
    }
}

/// cgroup v1's 2..262144 onto v2's 1..10000, linearly.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// The BFQ scheduler takes the specification's weights as they are; io.cost has its own scale.
fn weighing(device: &str, weight: u16) -> Setting {
    let otherwise = setting("io.weight", format!("{device} {}", io_weight(weight)));
    Setting { otherwise: Some(Box::new(otherwise)), ..setting("io.bfq.weight", format!("{device} {weight}")) }
}

/// The specification's 10..1000 onto io.weight's 1..10000, linearly.
fn io_weight(weight: u16) -> u32 {
    1 + (u32::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

/// A file below the cgroup, not a path out of it.
fn plain_name(name: &str) -> Result<()> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(Failure::invalid("cgroup", format!("{name:?} is not the name of a cgroup file")));
    }
    Ok(())
}

fn setting(file: &str, value: String) -> Setting {
    Setting { file: file.to_string(), value, otherwise: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str) -> Result<Vec<String>> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        Ok(resources.settings()?.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect())
    }

    #[test]
    fn converts_each_field() {
        for (json, expected) in [
            (r#"{"cpu":{"shares":2}}"#, "cpu.weight=1"),
            (r#"{"cpu":{"shares":1024}}"#, "cpu.weight=39"),
            (r#"{"cpu":{"shares":262144}}"#, "cpu.weight=10000"),
            (r#"{"cpu":{"quota":50000,"period":200000}}"#, "cpu.max=50000 200000"),
            (r#"{"cpu":{"quota":50000}}"#, "cpu.max=50000 100000"),
            (r#"{"cpu":{"quota":-1,"period":1000}}"#, "cpu.max=max 1000"),
            (r#"{"cpu":{"cpus":"0-1"}}"#, "cpuset.cpus=0-1"),
            (r#"{"memory":{"limit":4096}}"#, "memory.max=4096"),
            (r#"{"memory":{"limit":-1}}"#, "memory.max=max"),
            (r#"{"memory":{"reservation":8192}}"#, "memory.low=8192"),
            (r#"{"memory":{"swap":-1}}"#, "memory.swap.max=max"),
            (r#"{"pids":{"limit":7}}"#, "pids.max=7"),
            (r#"{"pids":{"limit":-1}}"#, "pids.max=max"),
            (r#"{"blockIO":{"weight":500}}"#, "io.bfq.weight=default 500"),
            (r#"{"blockIO":{"weightDevice":[{"major":8,"minor":1,"weight":20}]}}"#, "io.bfq.weight=8:1 20"),
            (r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":1,"rate":9}]}}"#, "io.max=8:1 rbps=9"),
            (r#"{"blockIO":{"throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":9}]}}"#, "io.max=8:1 wiops=9"),
            (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4}]}"#, "hugetlb.2MB.max=4"),
            (r#"{"unified":{"memory.high":"1M"}}"#, "memory.high=1M"),
        ] {
            assert_eq!(lines(json).unwrap(), [expected], "{json}");
        }
    }

    #[test]
    fn weights_without_bfq() {
        for (weight, expected) in [(10, "default 1"), (500, "default 4950"), (1000, "default 10000")] {
            assert_eq!(weighing("default", weight).otherwise.unwrap().value, expected);
        }
    }

    #[test]
    fn swap_counts_without_memory() {
        let both = lines(r#"{"memory":{"limit":100,"swap":150}}"#).unwrap();
        assert_eq!(both, ["memory.swap.max=50", "memory.max=100"]);
        assert!(lines(r#"{"memory":{"limit":100,"swap":50}}"#).is_err());
        assert!(lines(r#"{"memory":{"swap":50}}"#).is_err());
    }

    #[test]
    fn files_stay_inside_the_cgroup() {
        for name in ["../x", "a/b", "", ".."] {
            let json = serde_json::json!({"unified": {name: "1"}}).to_string();
            assert_eq!(lines(&json).unwrap_err().stage, "cgroup");
        }
        assert!(lines(r#"{"hugepageLimits":[{"pageSize":"../x","limit":4}]}"#).is_err());
    }
}
