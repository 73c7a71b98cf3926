//! A registry on loopback: images by the distribution protocol, as far as a Docker engine pulls with it, and
//! charts as helm finds them in a folder that is served.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// How long a client may take with its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is served, by path: its media type and its bytes.
type Served = Arc<Mutex<BTreeMap<String, (&'static str, Vec<u8>)>>>;

/// Serves until the test's process ends.
pub(crate) struct Registry {
    address: SocketAddr,
    served: Served,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let nothing = ("application/json", b"{}".to_vec());
        let served: Served = Arc::new(Mutex::new(BTreeMap::from([("/v2/".to_owned(), nothing)])));
        let of_thread = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&of_thread);
                std::thread::spawn(move || answer(stream, &served));
            }
        });
        Self { address, served }
    }

    /// Where it is, as `HOST:PORT`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Has an image with one empty layer from now on; its digest. No two names have the same.
    pub(crate) fn push(&self, name: &str, tag: &str) -> String {
        // Two blocks of zeros are an archive with nothing in it.
        let layer = vec![0; 1024];
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Labels": { "image": format!("{name}:{tag}") } },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let described = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "size": bytes.len(), "digest": digest(bytes) });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(CONFIG, &config),
            "layers": [described(LAYER, &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let of_manifest = digest(&manifest);
        for blob in [config, layer] {
            self.serve(
                format!("/v2/{name}/blobs/{}", digest(&blob)),
                "application/octet-stream",
                blob,
            );
        }
        for version in [tag, &of_manifest] {
            self.serve(format!("/v2/{name}/manifests/{version}"), MANIFEST, manifest.clone());
        }
        of_manifest
    }

    /// Serves the files of a folder under `/charts/`.
    pub(crate) fn serve_charts(&self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                self.serve(
                    format!("/charts/{name}"),
                    "application/octet-stream",
                    fs::read(&path).unwrap(),
                );
            }
        }
    }

    fn serve(&self, path: String, kind: &'static str, bytes: Vec<u8>) {
        self.served.lock().unwrap().insert(path, (kind, bytes));
    }
}

/// Answers one request. A client that breaks off is none of the test's business.
fn answer(stream: TcpStream, served: &Served) {
    drop(try_answer(stream, served));
}

fn try_answer(mut stream: TcpStream, served: &Served) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let found = served.lock().unwrap().get(path).cloned();
    let (status, (kind, bytes)) = match found {
        Some(found) => ("200 OK", found),
        None => ("404 Not Found", ("application/json", b"{\"errors\":[]}".to_vec())),
    };
    let (length, digest) = (bytes.len(), digest(&bytes));
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nDocker-Content-Digest: {digest}\r\n\
         Connection: close\r\n\r\n"
    )?;
    if method == "HEAD" { Ok(()) } else { stream.write_all(&bytes) }
}

fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}
