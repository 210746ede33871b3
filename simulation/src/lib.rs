pub mod auditor;
pub mod chance;
pub mod disk;
