//! What the API server, or whatever is between, says instead of an answer, in words for people.
//!
//! kube prints a status twice and with all its fields, which buries the one sentence that the server wrote.

use std::error::Error;
use std::fmt;

use kube::core::Status;

/// Why a request was not answered as it was meant to be.
#[derive(Debug)]
pub struct Refusal(kube::Error);

impl From<kube::Error> for Refusal {
    fn from(error: kube::Error) -> Self {
        Self(error)
    }
}

impl Refusal {
    /// Whether nobody has refused anything: there was no answer. A server that restarts is silent for
    /// a while.
    pub(crate) const fn is_silence(&self) -> bool {
        matches!(self.0, kube::Error::Service(_) | kube::Error::HyperError(_))
    }

    /// Whether the server says that we may not do this.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(&self.0, kube::Error::Api(status) if status.code == 403)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            kube::Error::Api(status) => match &**status {
                Status { message, .. } if !message.is_empty() => f.write_str(message),
                Status { code, reason, .. } => write!(f, "status {code} {reason}"),
            },
            kube::Error::Service(error) => fmt::Display::fmt(error, f),
            kube::Error::HyperError(error) => fmt::Display::fmt(error, f),
            error => fmt::Display::fmt(error, f),
        }
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            kube::Error::Api(_) => None,
            kube::Error::Service(error) => error.source(),
            kube::Error::HyperError(error) => error.source(),
            error => error.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: Status) -> String {
        ztc_engine::chain(&Refusal::from(kube::Error::Api(Box::new(status))))
    }

    #[test]
    fn what_the_server_wrote_is_told_once_and_nothing_else() {
        let status = Status::failure(r#"pods "web" not found"#, "NotFound").with_code(404);
        assert_eq!(told(status), r#"pods "web" not found"#);
    }

    #[test]
    fn a_server_without_words_is_told_by_its_code() {
        let status = Status::failure("", "ServiceUnavailable").with_code(503);
        assert_eq!(told(status), "status 503 ServiceUnavailable");
    }

    #[test]
    fn a_refusal_is_no_silence() {
        let status = Status::failure("no", "Forbidden").with_code(403);
        assert!(!Refusal::from(kube::Error::Api(Box::new(status))).is_silence());
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(Refusal::from(kube::Error::Service(cause.into())).is_silence());
    }

    #[test]
    fn what_is_between_is_told_without_the_layers_of_the_client() {
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refusal = Refusal::from(kube::Error::Service(cause.into()));
        assert_eq!(ztc_engine::chain(&refusal), "connection refused");
    }
}
