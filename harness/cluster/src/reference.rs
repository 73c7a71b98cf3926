//! References to images, `HOST/PATH:TAG@DIGEST`, as far as a bundle needs to read them.

use sha2::{Digest, Sha256};

use crate::bundle::hex;

/// How long the readable part of a file's name may be. File systems take 255 bytes.
const READABLE: usize = 100;

/// A reference to an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// The host and the path.
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Reads a reference; nothing where it is none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.to_owned())),
            None => (text, None),
        };
        // A colon before a slash belongs to the port of a host.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (named, None),
        };
        let part = |it: &str| it.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '_');
        let sound = |it: &str| it.chars().all(|it| it.is_ascii_graphic() && !"?#%\\".contains(it));
        let parts = name.split('/').chain(tag.as_deref()).chain(digest.as_deref());
        (sound(text) && parts.into_iter().all(part)).then(|| Self {
            name: name.to_owned(),
            tag,
            digest,
        })
    }

    /// The name without tag and digest.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The tag; one without tag and digest means `latest`.
    pub(crate) fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag.as_deref(),
        }
    }

    /// The digest.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What tells which image of that name is meant: the digest, or else the tag.
    pub(crate) fn version(&self) -> &str {
        self.digest().or(self.tag()).expect("a reference without a digest has a tag")
    }

    /// What the registry and Docker know it by. A tag beside a digest is no more than a comment.
    pub(crate) fn exact(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.name),
            None => format!("{}:{}", self.name, self.version()),
        }
    }

    /// What it is called in an archive, which keeps tags and no digests; nothing where it has no tag.
    pub(crate) fn tagged(&self) -> Option<String> {
        self.tag().map(|tag| format!("{}:{tag}", self.name))
    }
}

/// The name of the archive of an image. No two images have the same, and it is safe wherever it goes:
/// letters, digits, dots, dashes and underscores, and no dot in front.
pub(crate) fn archive_name(reference: &str) -> String {
    let safe = |it: char| if it.is_ascii_alphanumeric() || "._".contains(it) { it } else { '-' };
    let readable: String = reference.chars().take(READABLE).map(safe).collect();
    // Different references may read the same by now.
    let digest = hex(&Sha256::digest(reference)[..6]);
    format!("{}-{digest}.tar", readable.trim_start_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:af7382699576b9e65e9184efa52eeca0b58aea70ad6e511bf260c91d9f740463";

    fn read(text: &str) -> Reference {
        Reference::read(text).unwrap_or_else(|| panic!("{text} is no reference"))
    }

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(read("localhost:5000/a/b").tag(), Some("latest"));
        assert_eq!(read("localhost:5000/a/b:v1").tag(), Some("v1"));
        assert_eq!(read("localhost:5000/a/b:v1").name(), "localhost:5000/a/b");
    }

    #[test]
    fn a_digest_says_which_image_and_the_tag_what_it_is_called() {
        let both = read(&format!("quay.io/cilium/cilium:v1.20.2@{DIGEST}"));
        assert_eq!(both.exact(), format!("quay.io/cilium/cilium@{DIGEST}"));
        assert_eq!(both.tagged().unwrap(), "quay.io/cilium/cilium:v1.20.2");
        assert_eq!(read(&format!("a/b@{DIGEST}")).tagged(), None);
        assert_eq!(read("a/b").exact(), "a/b:latest");
    }

    #[test]
    fn what_is_no_reference_is_not_sent_to_an_engine() {
        for text in ["", "a b:v1", "../../etc:v1", "a//b", "a/b:", "a/b@", "a?b=c:v1", "a/%2e:v1"] {
            assert_eq!(Reference::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_of_archives_are_unique_and_safe() {
        let long = "a/".repeat(300);
        let references = ["a/b:c", "a-b:c", "a/b-c", "A/b:c", "../../etc/passwd", "..", "", &long];
        let names: std::collections::BTreeSet<String> =
            references.iter().map(|it| archive_name(it).to_lowercase()).collect();
        assert_eq!(names.len(), references.len());
        for name in &names {
            let safe = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
            assert!(name.chars().all(safe) && !name.starts_with('.'), "{name}");
            assert!(name.len() < 130, "{name}");
        }
        assert!(archive_name("quay.io/a/b:v1").starts_with("quay.io-a-b-v1-"));
    }
}
