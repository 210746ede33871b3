pub mod auditor;
pub mod chance;
pub mod disk;
pub mod door;
pub mod faults;
pub mod workload;
