pub mod auditor;
