//! The program that a storm spawns: by default a static one that only exits, the shortest life a program can have.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// The name of the default target; rules match it.
pub(crate) const NAME: &str = "storm-target";

/// A program and what it is, for the report.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) what: String,
}

/// The chosen program, or the default one, made in `folder`.
pub(crate) fn make(chosen: Option<&Path>, folder: &Path) -> Result<Target> {
    if let Some(path) = chosen {
        // Rules see the path with its links resolved.
        let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        return Ok(Target { what: path.display().to_string(), path });
    }
    let path = folder.canonicalize()?.join(NAME);
    let what = if let Some(bytes) = elf() {
        fs::write(&path, &bytes)?;
        format!("a static program of {} bytes that only exits", bytes.len())
    } else if compile(&path, folder)? {
        "a static program that only exits, compiled because its bytes are not known for this architecture"
            .into()
    } else {
        fs::copy("/bin/true", &path)?;
        "a copy of /bin/true, because there is no C compiler for a smaller one".into()
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(Target { path, what })
}

/// A static ELF executable (elf(5)): one segment that holds the code of `exit_group(0)`.
fn elf() -> Option<Vec<u8>> {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    const BASE: u64 = 0x40_0000;
    let (machine, code): (u16, &[u8]) = if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
        // xor edi, edi; mov eax, 231; syscall
        (62, &[0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05])
    } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
        // mov x0, 0; mov x8, 94; svc 0
        (183, &[0x00, 0x00, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4])
    } else {
        return None;
    };
    let size = HEADER + SEGMENT + code.len() as u64;
    // 64 bits, little-endian, version 1, System V.
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC.
    elf.extend([2u16, machine].map(u16::to_le_bytes).concat());
    elf.extend(1u32.to_le_bytes());
    // The entry, the offset of the segment table, no sections; then no flags.
    elf.extend([BASE + HEADER + SEGMENT, HEADER, 0].map(u64::to_le_bytes).concat());
    elf.extend(0u32.to_le_bytes());
    // Sizes of the header and of a segment's entry, one segment; no sections.
    elf.extend([HEADER as u16, SEGMENT as u16, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    // PT_LOAD, readable and executable, the whole file.
    elf.extend([1u32, 5].map(u32::to_le_bytes).concat());
    elf.extend([0, BASE, BASE, size, size, 0x1000].map(u64::to_le_bytes).concat());
    elf.extend(code);
    Some(elf)
}

/// Compiles the program; false if there is no compiler or it cannot.
fn compile(path: &Path, folder: &Path) -> Result<bool> {
    let source = folder.join("target.c");
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let compiled = Command::new("cc")
        .args(["-O2", "-static", "-o"])
        .arg(path)
        .arg(source)
        .stderr(Stdio::null())
        .status();
    Ok(compiled.is_ok_and(|status| status.success()))
}
