//! The image of the probe, made in this process: one static file and nothing below it.
//!
//! The form is that of `docker save` (image specification 1.2 of moby, `image/spec/spec.md`), which both
//! Docker and containerd import.

use std::io;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::bundle::hex;

/// Where the probe is in its image.
pub(crate) const PROBE: &str = "/ztc-probe";

/// An image as an archive.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    /// The reference by which pods name it. It follows from the contents.
    pub(crate) reference: String,
    /// The archive, in the form of `docker save`.
    pub(crate) tar: Vec<u8>,
}

/// Why a file cannot be the probe of an image without anything else in it.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is no executable of Linux.
    #[error("the probe is no ELF file")]
    NoElf,
    /// It needs a loader and libraries.
    #[error("the probe needs a loader, and its image has none: link it statically")]
    Dynamic,
    /// The archive could not be written.
    #[error("cannot make the archive of the probe's image")]
    Tar(#[from] io::Error),
}

/// The image of a probe.
pub(crate) fn archive(probe: &[u8]) -> Result<Archive, ImageError> {
    require_static(probe)?;
    let layer = tar_of(&[(PROBE.trim_start_matches('/'), 0o755, probe)])?;
    let diff_id = format!("sha256:{}", sha256(&layer));
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Entrypoint": [PROBE] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    let config = serde_json::to_vec(&config).expect("the configuration is plain data");
    let config_name = format!("{}.json", sha256(&config));
    // Half of the digest tells any two probes apart, and fits into a tag.
    let digest = hex(&Sha256::digest(probe)[..16]);
    let reference = format!("ztc.local/probe:{digest}");
    let manifest = json!([{
        "Config": config_name,
        "RepoTags": [reference],
        "Layers": ["layer.tar"],
    }]);
    let manifest = serde_json::to_vec(&manifest).expect("the manifest is plain data");
    let tar = tar_of(&[
        ("manifest.json", 0o644, &manifest),
        (&config_name, 0o644, &config),
        ("layer.tar", 0o644, &layer),
    ])?;
    Ok(Archive { reference, tar })
}

/// The name that Go, and so every registry, has for the architecture of this program.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tar_of(files: &[(&str, u32, &[u8])]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, contents) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(contents.len() as u64);
        header.set_mode(*mode);
        // No owner and no time: the same probe makes the same image.
        header.set_mtime(0);
        tar.append_data(&mut header, name, *contents)?;
    }
    tar.into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Looks for a program header of the type `PT_INTERP` (elf(5)).
fn require_static(file: &[u8]) -> Result<(), ImageError> {
    const PT_INTERP: u32 = 3;
    let word = |at: usize, length: usize| -> Option<u64> {
        let bytes = file.get(at..at.checked_add(length)?)?;
        // Little-endian, as both architectures are that Kubernetes' nodes commonly have.
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    if file.get(..5) != Some(b"\x7fELF\x02") {
        return Err(ImageError::NoElf);
    }
    let headers = || Some((word(32, 8)?, word(54, 2)?, word(56, 2)?));
    let (offset, size, count) = headers().ok_or(ImageError::NoElf)?;
    for index in 0..count {
        let at = usize::try_from(offset + index * size).map_err(|_too_far| ImageError::NoElf)?;
        if word(at, 4).ok_or(ImageError::NoElf)? == u64::from(PT_INTERP) {
            return Err(ImageError::Dynamic);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// The header of a 64-bit ELF file with one program header of this type.
    fn elf(kind: u8) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..5].copy_from_slice(b"\x7fELF\x02");
        (file[32], file[54], file[56]) = (64, 56, 1);
        file[64] = kind;
        file
    }

    #[test]
    fn an_image_names_its_layer_and_its_configuration() {
        let archive = archive(&elf(1)).unwrap();
        let mut names = Vec::new();
        let mut manifest = String::new();
        for entry in tar::Archive::new(archive.tar.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name == "manifest.json" {
                entry.read_to_string(&mut manifest).unwrap();
            }
            names.push(name);
        }
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], archive.reference.as_str());
        assert!(names.contains(&manifest[0]["Config"].as_str().unwrap().to_owned()), "{names:?}");
        assert!(names.contains(&"layer.tar".to_owned()), "{names:?}");
    }

    #[test]
    fn the_same_probe_makes_the_same_image() {
        let (one, two) = (archive(&elf(1)).unwrap(), archive(&elf(1)).unwrap());
        assert_eq!((one.reference, one.tar), (two.reference, two.tar));
    }

    #[test]
    fn a_probe_that_needs_a_loader_is_refused() {
        assert!(matches!(archive(&elf(3)), Err(ImageError::Dynamic)));
    }

    #[test]
    fn what_is_no_executable_is_refused() {
        for file in [&b"#!/bin/sh\n"[..], b"", &elf(1)[..60]] {
            assert!(matches!(archive(file), Err(ImageError::NoElf)), "{file:?}");
        }
    }
}
