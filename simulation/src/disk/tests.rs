use jangbu_raft_store::vfs::{OpenMode, create_dir_durable, read_file, replace_file};

use super::*;
use crate::faults::{Act, Place};

fn disk() -> SimDisk {
    let disk = SimDisk::new(Dice::new(1, "test"));
    create_dir_durable(&*disk.mount(), Path::new("/data")).unwrap();
    disk
}

#[test]
fn what_was_synced_survives_and_the_rest_does_not() {
    let disk = disk();
    let path = Path::new("/data/log");
    let mount = disk.mount();
    let file = mount.open(path, OpenMode::Create).unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    file.sync_data().unwrap();
    mount.sync_dir(Path::new("/data")).unwrap();
    file.write_all_at(b"lost", 4).unwrap();
    assert_eq!(read_file(&*disk.durable_image(Path::new("/data")).mount(), path).unwrap(), b"kept");
    disk.crash(Survival::Nothing);
    assert_eq!(read_file(&*disk.mount(), path).unwrap(), b"kept");
    assert!(file.write_all_at(b"late", 4).is_err(), "the process is gone");
}

#[test]
fn a_name_needs_its_folder_synced() {
    let disk = disk();
    let mount = disk.mount();
    mount.open(Path::new("/data/a"), OpenMode::Create).unwrap().sync_data().unwrap();
    disk.crash(Survival::Nothing);
    assert!(!disk.mount().exists(Path::new("/data/a")));
}

#[test]
fn a_replaced_file_is_old_or_new() {
    for seed in 0..100 {
        let disk = SimDisk::new(Dice::new(seed, "test"));
        let path = Path::new("/data/current");
        create_dir_durable(&*disk.mount(), Path::new("/data")).unwrap();
        replace_file(&*disk.mount(), path, b"old").unwrap();
        let mount = disk.mount();
        let file = mount.open(Path::new("/data/new"), OpenMode::Create).unwrap();
        file.write_all_at(b"new", 0).unwrap();
        file.sync_data().unwrap();
        mount.rename(Path::new("/data/new"), path).unwrap();
        disk.crash(Survival::Some);
        let found = read_file(&*disk.mount(), path).unwrap();
        assert!(found == b"old" || found == b"new", "{found:?}");
    }
}

#[test]
fn what_a_killed_process_left_can_still_be_lost_to_a_power_cut() {
    let disk = disk();
    let path = Path::new("/data/log");
    disk.mount().open(path, OpenMode::Create).unwrap().write_all_at(b"x", 0).unwrap();
    disk.mount().sync_dir(Path::new("/data")).unwrap();
    disk.crash(Survival::All);
    assert_eq!(read_file(&*disk.mount(), path).unwrap(), b"x");
    disk.crash(Survival::Nothing);
    assert_eq!(disk.mount().len(path).unwrap(), 0);
}

#[test]
fn a_trap_ends_a_life_before_or_after_its_step() {
    for before in [true, false] {
        let disk = disk();
        let mount = disk.mount();
        create_dir_durable(&*mount, Path::new("/data/log")).unwrap();
        let file = mount.open(Path::new("/data/log/1"), OpenMode::Create).unwrap();
        mount.sync_dir(Path::new("/data/log")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        let step = Step { act: Act::Sync, place: Place::Log, skip: 1, before };
        disk.set_trap(step, Survival::Nothing);
        file.sync_data().unwrap();
        file.write_all_at(b"y", 1).unwrap();
        assert!(disk.sprung().is_none());
        assert!(file.sync_data().is_err());
        assert!(disk.sprung().is_some());
        assert!(file.write_all_at(b"z", 2).is_err(), "nothing follows");
        let kept: &[u8] = if before { b"x" } else { b"xy" };
        assert_eq!(read_file(&*disk.mount(), Path::new("/data/log/1")).unwrap(), kept);
    }
}

#[test]
fn a_read_that_lies_leaves_what_lies_there_as_it_is() {
    let disk = disk();
    let mount = disk.mount();
    let path = Path::new("/data/log");
    let file = mount.open(path, OpenMode::Create).unwrap();
    file.write_all_at(b"what is written\0\0\0", 0).unwrap();
    disk.set_faults(DiskFaults { reads_flip_percent: 100, ..DiskFaults::default() });
    let read = read_file(&*mount, path).unwrap();
    let flipped: u32 = read.iter().zip(b"what is written\0\0\0").map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!(flipped, 1);
    assert!(read.ends_with(b"\0\0\0"));
    disk.set_faults(DiskFaults::default());
    assert_eq!(read_file(&*mount, path).unwrap(), b"what is written\0\0\0");
}

#[test]
fn a_failed_sync_never_becomes_durable() {
    let disk = disk();
    let mount = disk.mount();
    let file = mount.open(Path::new("/data/log"), OpenMode::Create).unwrap();
    mount.sync_dir(Path::new("/data")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    disk.set_faults(DiskFaults { sync_fails: true, ..DiskFaults::default() });
    assert!(file.sync_data().is_err());
    disk.set_faults(DiskFaults::default());
    file.sync_data().unwrap();
    disk.crash(Survival::Nothing);
    assert_eq!(disk.mount().len(Path::new("/data/log")).unwrap(), 0);
}
