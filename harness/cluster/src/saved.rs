//! Archives as Docker saves them: written while their digest is taken, and looked through.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek};
use std::path::Path;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::bundle::hex;

/// How much is written at once, bytes: Docker sends smaller pieces.
const PIECE: usize = 1 << 20;

/// The longest description of an image that is looked into, bytes. Layers are longer.
const DESCRIPTION: u64 = 1 << 20;

/// Where an archive has what it is about.
const INDEX: &str = "index.json";

/// Writes a stream into a file, all of it or nothing; its SHA-256, and how long it is. What the stream says
/// of its own is the outer error; what the disk says the inner one.
pub(crate) async fn write<E>(
    pieces: impl Stream<Item = Result<Bytes, E>>,
    path: &Path,
) -> Result<io::Result<(String, u64)>, E> {
    let part = path.with_extension("part");
    let written = write_part(pieces, &part).await;
    let written = match written {
        Ok(Ok(written)) => Ok(tokio::fs::rename(&part, path).await.map(|()| written)),
        other => other,
    };
    if !matches!(written, Ok(Ok(_))) {
        // On a full disk the room is needed. If this fails, the next attempt writes over it.
        tokio::fs::remove_file(&part).await.ok();
    }
    written
}

async fn write_part<E>(
    pieces: impl Stream<Item = Result<Bytes, E>>,
    part: &Path,
) -> Result<io::Result<(String, u64)>, E> {
    let mut pieces = std::pin::pin!(pieces);
    let mut file = match File::create(part).await {
        Ok(file) => BufWriter::with_capacity(PIECE, file),
        Err(error) => return Ok(Err(error)),
    };
    let (mut digest, mut length) = (Sha256::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        digest.update(&piece);
        length += piece.len() as u64;
        if let Err(error) = file.write_all(&piece).await {
            return Ok(Err(error));
        }
    }
    if let Err(error) = file.flush().await {
        return Ok(Err(error));
    }
    // What the disk has not taken yet it may still refuse.
    Ok(file.get_ref().sync_all().await.map(|()| (hex(&digest.finalize()), length)))
}

/// The digest of something that an archive names among its contents and does not have; nothing where it
/// is whole.
///
/// Docker writes such archives where it keeps images in containerd's store: of an image for several
/// platforms it has pulled one, and names all. A node's containerd refuses them
/// (kubernetes-sigs/kind#3795).
pub(crate) fn lacking(archive: impl Read + Seek) -> io::Result<Option<String>> {
    let mut has = BTreeSet::new();
    let mut descriptions = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries_with_seek()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let name = match path.strip_prefix("blobs/sha256/") {
            Some(digest) => format!("sha256:{digest}"),
            None => path,
        };
        if entry.size() <= DESCRIPTION {
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            if let Ok(description) = serde_json::from_slice::<Value>(&text) {
                descriptions.insert(name.clone(), description);
            }
        }
        has.insert(name);
    }
    let mut to_look_at = vec![INDEX.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(name) = to_look_at.pop() {
        let manifests = descriptions.get(&name).and_then(|it| it["manifests"].as_array());
        for digest in manifests.into_iter().flatten().filter_map(|it| it["digest"].as_str()) {
            if !has.contains(digest) {
                return Ok(Some(digest.to_owned()));
            }
            if seen.insert(digest.to_owned()) {
                to_look_at.push(digest.to_owned());
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use futures_util::stream::iter;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_stream_is_written_with_the_digest_of_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let pieces = ["an ", "image"].map(|it| Ok::<_, ()>(Bytes::from(it)));
        let (digest, length) = write(iter(pieces), &path).await.unwrap().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"an image");
        assert_eq!((digest, length), (hex(&Sha256::digest("an image")), 8));
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let pieces = [Ok(Bytes::from("half")), Err("gone")];
        let broken = write(iter(pieces), &folder.path().join("a.tar")).await;
        assert_eq!(broken.unwrap_err(), "gone");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_by_the_disk_s_own_words() {
        let pieces = [Ok::<_, ()>(Bytes::from("an image"))];
        let refused = write_part(iter(pieces), Path::new("/dev/full")).await.unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    fn archive(files: &[(&str, Value)]) -> Cursor<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, contents) in files {
            let contents = contents.to_string();
            let mut header = tar::Header::new_ustar();
            header.set_size(contents.len() as u64);
            tar.append_data(&mut header, name, contents.as_bytes()).unwrap();
        }
        Cursor::new(tar.into_inner().unwrap())
    }

    fn naming(digests: &[&str]) -> Value {
        let manifests: Vec<Value> = digests.iter().map(|it| json!({ "digest": it })).collect();
        json!({ "manifests": manifests })
    }

    #[test]
    fn an_archive_that_names_a_platform_without_having_it_is_found_out() {
        let index = ("index.json", naming(&["sha256:a"]));
        let platforms = ("blobs/sha256/a", naming(&["sha256:b", "sha256:c"]));
        let one = ("blobs/sha256/b", json!({ "layers": [] }));
        let other = ("blobs/sha256/c", json!({ "layers": [] }));
        let half = archive(&[platforms.clone(), one.clone(), index.clone()]);
        assert_eq!(lacking(half).unwrap().unwrap(), "sha256:c");
        assert_eq!(lacking(archive(&[platforms, one, other, index])).unwrap(), None);
    }

    #[test]
    fn an_archive_without_an_index_is_whole_as_it_is() {
        let manifest = ("manifest.json", json!([{ "Config": "a.json", "Layers": [] }]));
        assert_eq!(lacking(archive(&[manifest])).unwrap(), None);
    }
}
