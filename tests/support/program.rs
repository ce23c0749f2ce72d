//! Programs to execute, and the environment in which tests do so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A script that makes a grandchild which waits until its parent and the script itself are gone, and becomes the program of
/// the first argument.
pub(crate) const DOUBLE_FORK: &str = r#"#!/bin/sh
(
  read -r parent rest < /proc/self/stat
  (
    while read -r own name state now rest < /proc/self/stat && [ "$now" = "$parent" ]; do :; done
    while [ -d /proc/$$ ]; do :; done
    exec "$1" "$2"
  ) &
) &
exit 0
"#;

/// Makes a program at `path` that ends at once, successfully, whatever its arguments: a static executable of some 130
/// bytes, so that storms are fast, and it works in a bare chroot; a copy of true(1) on other architectures.
pub(crate) fn tiny(path: &Path) -> PathBuf {
    place(tiny_elf(), path)
}

/// As [`tiny`], but it ends after 40 ms, where that architecture is known: for tests of what is done with a program, not of
/// whether it is seen. A host that takes a virtual machine's CPU away lets a listener come late, when a program that ends
/// at once may have gone.
pub(crate) fn brief(path: &Path) -> PathBuf {
    place(brief_elf(), path)
}

fn place(content: Option<Vec<u8>>, path: &Path) -> PathBuf {
    match content {
        Some(bytes) => {
            let raw = path.with_extension("raw");
            fs::write(&raw, bytes).unwrap();
            copy(&raw, path);
            fs::remove_file(raw).unwrap();
        }
        None => copy(Path::new("/bin/true"), path),
    }
    path.to_owned()
}

/// Copies a program. Another process does so: if this one had the file open for writing, a child that another test's
/// thread forks at that moment would keep it open, and executing it would fail with ETXTBSY.
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).arg(from).arg(to).status().unwrap();
    assert!(status.success(), "install {} {}: {status}", from.display(), to.display());
}

/// A script, executable.
pub(crate) fn script(path: &Path, text: &str) -> PathBuf {
    let raw = path.with_extension("raw");
    fs::write(&raw, text).unwrap();
    copy(&raw, path);
    fs::remove_file(raw).unwrap();
    path.to_owned()
}

/// Makes a program at `path` whose first instructions write a byte to standard output, and which then ends successfully:
/// what it wrote tells whether it ran. `None` on other architectures.
pub(crate) fn mark(path: &Path) -> Option<PathBuf> {
    let raw = path.with_extension("raw");
    fs::write(&raw, mark_elf()?).unwrap();
    copy(&raw, path);
    fs::remove_file(raw).unwrap();
    Some(path.to_owned())
}

/// Where the first instruction of [`tiny_elf`] and [`mark_elf`] is.
pub(crate) const ENTRY: u64 = BASE + HEADER + SEGMENT;

const HEADER: u64 = 64;
const SEGMENT: u64 = 56;
const BASE: u64 = 0x40_0000;

/// The content of [`mark`].
pub(crate) fn mark_elf() -> Option<Vec<u8>> {
    let write: &[u8] = if cfg!(target_arch = "x86_64") {
        // mov eax, 1; mov edi, 1; mov esi, 0x400000; mov edx, 1; syscall
        &[0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xbe, 0, 0, 0x40, 0, 0xba, 1, 0, 0, 0, 0x0f, 0x05]
    } else {
        // mov x8, 64; mov x0, 1; mov x1, 0x400000; mov x2, 1; svc 0
        &[
            0x08, 0x08, 0x80, 0xd2, 0x20, 0x00, 0x80, 0xd2, 0x01, 0x08, 0xa0, 0xd2, 0x22, 0x00, 0x80, 0xd2,
            0x01, 0x00, 0x00, 0xd4,
        ]
    };
    let (machine, exit) = machine()?;
    Some(elf(machine, &[write, exit].concat()))
}

/// A static ELF executable with the code of `exit_group(0)`.
pub(crate) fn tiny_elf() -> Option<Vec<u8>> {
    let (machine, exit) = machine()?;
    Some(elf(machine, exit))
}

/// The content of [`brief`]: nanosleep(2), and `exit_group(0)`.
pub(crate) fn brief_elf() -> Option<Vec<u8>> {
    let sleep: &[u8] = if cfg!(target_arch = "x86_64") {
        // push 40000000; push 0; mov rdi, rsp; xor esi, esi; mov eax, 35; syscall
        &[0x68, 0, 0x5a, 0x62, 2, 0x6a, 0, 0x48, 0x89, 0xe7, 0x31, 0xf6, 0xb8, 35, 0, 0, 0, 0x0f, 0x05]
    } else {
        // sub sp, sp, 16; str xzr, [sp]; mov x1, 40000000 (in two halves); str x1, [sp, 8];
        // mov x0, sp; mov x1, 0; mov x8, 101; svc 0
        &[
            0xff, 0x43, 0x00, 0xd1, 0xff, 0x03, 0x00, 0xf9, 0x01, 0x40, 0x8b, 0xd2, 0x41, 0x4c, 0xa0, 0xf2,
            0xe1, 0x07, 0x00, 0xf9, 0xe0, 0x03, 0x00, 0x91, 0x01, 0x00, 0x80, 0xd2, 0xa8, 0x0c, 0x80, 0xd2,
            0x01, 0x00, 0x00, 0xd4,
        ]
    };
    let (machine, exit) = machine()?;
    Some(elf(machine, &[sleep, exit].concat()))
}

/// The machine's number (elf(5)) and the code of `exit_group(0)`.
fn machine() -> Option<(u16, &'static [u8])> {
    if cfg!(target_arch = "x86_64") {
        // xor edi, edi; mov eax, 231; syscall
        Some((62, &[0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]))
    } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
        // mov x0, 0; mov x8, 94; svc 0
        Some((183, &[0x00, 0x00, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]))
    } else {
        None
    }
}

/// A static ELF executable (elf(5)) with one segment, which begins with the code.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADER + SEGMENT + code.len() as u64;
    // ELF, 64 bits, little-endian, version 1, System V.
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, the machine, version 1.
    elf.extend([2u16.to_le_bytes(), machine.to_le_bytes()].concat());
    elf.extend(1u32.to_le_bytes());
    // The entry, the offset of the segment table, no sections, no flags.
    elf.extend([ENTRY, HEADER, 0].map(u64::to_le_bytes).concat());
    elf.extend(0u32.to_le_bytes());
    // Sizes: this header, a segment's entry and their number, a section's and theirs.
    elf.extend([HEADER as u16, SEGMENT as u16, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    // PT_LOAD, readable and executable, from the file's beginning.
    elf.extend([1u32, 5].map(u32::to_le_bytes).concat());
    elf.extend([0, BASE, BASE, size, size, 0x1000].map(u64::to_le_bytes).concat());
    elf.extend(code);
    elf
}
