//! Ordinary programs over a mount whose pieces are still to come.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::content::library;
use super::program::Program;
use super::stage::Stage;

/// Runs a shell script with the mount as `$1` and the source as `$2`; it must end well and say nothing.
#[track_caller]
fn agree(name: &str, script: &str, mount: &Path, source: &Path) {
    let mut command = Command::new("bash");
    let script = format!("set -euo pipefail; {script}");
    command.args(["-c", &script, "bash"]).arg(mount).arg(source).env("LC_ALL", "C.UTF-8");
    let (status, said) = Program::outcome(&mut command);
    assert!(status.success() && said.is_empty(), "{name}: {status}: {said}");
}

#[test]
fn programs_that_walk_a_tree_see_the_source_tree() {
    let stage = Stage::new();
    let data = library(&stage, 20);
    let torrent = stage.torrent(&data, &["--piece-size", "64KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &[]);
    let mount = mounted.path("library");
    // An x-bit is for all or nobody, and directories are of one mode.
    let print = r"find . \( -type d -printf '%y %P\n' \) -o -type f -perm -100 -printf 'x %s %P\n' -o -printf '%y %s %P %l\n' | sort";
    let table = [
        ("ls -lR", "test $(ls -lR \"$1\" | grep -c '^-') = $(ls -lR \"$2\" | grep -c '^-')"),
        ("find -printf", &format!("diff <(cd \"$1\"; {print}) <(cd \"$2\"; {print})")),
        (
            "tar",
            "pack() { tar --sort=name --mtime=@0 --owner=0 --group=0 --mode=a=rX -C \"$1\" -cf - . | sha256sum; }; \
             diff <(pack \"$1\") <(pack \"$2\")",
        ),
        ("diff -r", "diff -r --no-dereference \"$1\" \"$2\""),
        ("rsync -c", "rsync -rlcn --itemize-changes --delete \"$2\"/ \"$1\"/"),
        (
            "sha256sum -c",
            "cd \"$2\"; find . -type f -print0 | xargs -0 sha256sum > ../sums; cd \"$1\"; sha256sum --quiet -c \"$2\"/../sums",
        ),
        ("cp -r", "cp -r \"$1\" \"$2\".copy; diff -r --no-dereference \"$2\" \"$2\".copy"),
        (
            "du",
            "test $(du -s --apparent-size -B1 --files0-from=<(find \"$1\" -type f -print0) | awk '{s+=$1} END {print s}') \
             = $(find \"$2\" -type f -printf '%s\\n' | awk '{s+=$1} END {print s}')",
        ),
    ];
    for (name, script) in table {
        agree(name, script, &mount, &data);
    }
    mounted.unmount();
}

#[test]
fn programs_that_read_one_file_see_the_source_file() {
    let stage = Stage::new();
    let data = stage.file("one.bin", 24 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mmap = "import hashlib, mmap, sys
with open(sys.argv[1], 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
    step = 1 << 20
    parts = [m[at:at + step] for at in reversed(range(0, len(m), step))]
    assert m[12345678] == parts[-12][12345678 % step]
print(hashlib.sha256(b''.join(reversed(parts))).hexdigest())";
    let map = format!("diff <(python3 -c \"{mmap}\" \"$1\") <(sha256sum < \"$2\" | cut -d' ' -f1)");
    let table = [
        ("cat", "cat \"$1\" | cmp - \"$2\""),
        ("cmp", "cmp \"$1\" \"$2\""),
        ("cp", "cp \"$1\" \"$2.copy\"; cmp \"$2.copy\" \"$2\""),
        ("dd, direct", "dd if=\"$1\" iflag=direct bs=1M status=none | cmp - \"$2\""),
        ("tail", "cmp <(tail -c 99999 \"$1\") <(tail -c 99999 \"$2\")"),
        ("mmap", &map),
    ];
    for (name, script) in table {
        // A fresh cache each time, so that each program meets pieces that are not here.
        let _ = fs::remove_dir_all(stage.path("cache"));
        let mounted = stage.mount(&torrent, &[seed.addr], &["--no-fill"]);
        agree(name, script, &mounted.path("one.bin"), &data);
        mounted.unmount();
    }
}

#[test]
fn fio_verifies_what_it_wrote_before() {
    let stage = Stage::new();
    let data = stage.path("fio.bin");
    let fio = |file: &Path, mode: &str, how: &str| {
        let mut command = Command::new("fio");
        command
            .current_dir(stage.path(""))
            .arg("--name=verify")
            .arg(format!("--filename={}", file.display()));
        command.args([
            "--size=32M",
            "--bs=64k",
            "--verify=crc32c",
            "--randseed=7",
            "--thread",
            "--minimal",
        ]);
        command.args([mode, how]);
        Program::done(&mut command)
    };
    fio(&data, "--rw=write", "--do_verify=0");
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &["--no-fill"]);
    let file = mounted.path("fio.bin");
    fio(&file, "--rw=randread", "--verify_fatal=1");
    fio(&file, "--rw=read", "--verify_fatal=1");
    mounted.unmount();
}
