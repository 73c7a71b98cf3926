//! Conditions that controllers write into the status of objects: what they say of a policy or a service.
//!
//! They are claims, not outcomes: that Istio says that a policy is accepted does not mean that anything is enforced, which
//! is why a case may expect both.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::ObjectRef;
use crate::verdict::{Failure, Verdict};

/// What a condition is about. Whether Cilium takes a policy is none of them: every case waits for that.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ConditionType {
    /// Of an `AuthorizationPolicy` without target references: ztunnel was told of it.
    ZtunnelAccepted,
    /// Of an `AuthorizationPolicy` with target references: these have a waypoint.
    WaypointAccepted,
    /// Of a service that is put behind a waypoint: it is.
    #[serde(rename = "istio.io/WaypointBound")]
    WaypointBound,
    /// Of a `Gateway`: it can be sent to.
    Programmed,
}

impl ConditionType {
    /// The kind of objects that have it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::ZtunnelAccepted | Self::WaypointAccepted => "AuthorizationPolicy",
            Self::WaypointBound => SERVICE,
            Self::Programmed => "Gateway",
        }
    }

    /// Its name in a status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZtunnelAccepted => "ZtunnelAccepted",
            Self::WaypointAccepted => "WaypointAccepted",
            Self::WaypointBound => "istio.io/WaypointBound",
            Self::Programmed => "Programmed",
        }
    }
}

/// The kind of services.
pub const SERVICE: &str = "Service";

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It is.
    True,
    /// It is not.
    False,
    /// The controller does not know.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(is: bool) -> Self {
        if is { Self::True } else { Self::False }
    }
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        })
    }
}

/// A condition as it stands in the status of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// What it is about: any name, as controllers have more than are known here.
    #[serde(rename = "type")]
    pub about: String,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why, in a word.
    #[serde(default)]
    pub reason: String,
    /// Why, in a sentence.
    #[serde(default)]
    pub message: String,
}

impl Condition {
    /// One of the known types.
    pub fn new(about: ConditionType, is: bool, reason: &str, message: impl Into<String>) -> Self {
        Self {
            about: about.name().to_owned(),
            status: is.into(),
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// Whether a condition of that name is true.
pub fn holds(conditions: &[Condition], about: &str) -> bool {
    conditions.iter().any(|it| it.about == about && it.status == ConditionStatus::True)
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { about, status, reason, message } = self;
        write!(f, "{about}={status}")?;
        if !reason.is_empty() {
            write!(f, ", {reason}")?;
        }
        if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
    }
}

/// A condition that a case expects under its policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedCondition {
    /// Of what.
    pub object: ObjectRef,
    /// What it is about.
    pub about: ConditionType,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why, in a word; any reason where the case does not say.
    pub reason: Option<String>,
}

impl fmt::Display for ExpectedCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.about, self.status)?;
        match &self.reason {
            Some(reason) => write!(f, ", {reason}"),
            None => Ok(()),
        }
    }
}

impl ExpectedCondition {
    /// The condition of that type, if the object has one.
    pub fn among<'a>(&self, conditions: &'a [Condition]) -> Option<&'a Condition> {
        conditions.iter().find(|it| it.about == self.about.name())
    }

    /// What it comes to, by the conditions that the object has in the end.
    pub fn judge(&self, conditions: &[Condition]) -> Verdict {
        let found = self.among(conditions);
        let is_it = |it: &Condition| {
            it.status == self.status
                && self.reason.as_ref().is_none_or(|reason| *reason == it.reason)
        };
        if found.is_some_and(is_it) {
            return Verdict::Pass;
        }
        Verdict::Fail(Failure::WrongCondition {
            object: Box::new(self.object.clone()),
            expected: self.to_string(),
            found: found.map_or_else(|| format!("no {}", self.about), ToString::to_string),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(reason: Option<&str>) -> ExpectedCondition {
        ExpectedCondition {
            object: ObjectRef {
                api_version: "security.istio.io/v1".to_owned(),
                kind: "AuthorizationPolicy".to_owned(),
                namespace: Some("app".to_owned()),
                name: "deny-l7-on-selector".to_owned(),
            },
            about: ConditionType::ZtunnelAccepted,
            status: ConditionStatus::True,
            reason: reason.map(str::to_owned),
        }
    }

    /// As it was recorded of Istio 1.31.0-rc.0 (`03f-selector-deny-l7.txt`), shortened.
    const RECORDED: &str = r#"{
        "lastTransitionTime": "2026-11-23T23:09:42.921692649Z",
        "message": "ztunnel does not support HTTP attributes (found: methods).",
        "observedGeneration": "1", "reason": "UnsupportedValue", "status": "True", "type": "ZtunnelAccepted"
    }"#;

    #[test]
    fn a_recorded_condition_is_held_against_what_is_expected() {
        let recorded: Condition = serde_json::from_str(RECORDED).unwrap();
        let all = [recorded];
        assert_eq!(expected(None).judge(&all), Verdict::Pass);
        assert_eq!(expected(Some("UnsupportedValue")).judge(&all), Verdict::Pass);
        let verdict = expected(Some("Accepted")).judge(&all);
        assert_eq!(
            verdict.to_string(),
            "wrong-condition: AuthorizationPolicy/app/deny-l7-on-selector should say ZtunnelAccepted=True, Accepted, and \
             says ZtunnelAccepted=True, UnsupportedValue: ztunnel does not support HTTP attributes (found: methods)."
        );
    }

    #[test]
    fn a_condition_that_is_not_there_is_no_condition() {
        let verdict = expected(None).judge(&[]);
        assert_eq!(
            verdict.to_string(),
            "wrong-condition: AuthorizationPolicy/app/deny-l7-on-selector should say ZtunnelAccepted=True, and says no \
             ZtunnelAccepted"
        );
    }
}
