//! What the view shows at one moment: what the box says of itself and, beside it, the truth about plant and
//! cloud.

use std::time::Duration;

use super::cloud::CloudState;
use super::dosing::Dosing;
use super::plant::Tank;
use super::recent::Message;
use super::station::Station;
use crate::management::report::Report;

/// One picture.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    /// since the demo started
    pub(super) running_for: Duration,
    pub(super) report: Report,
    pub(super) tanks: Vec<Tank>,
    /// `None`: the box has nothing to do with it
    pub(super) station: Option<Station>,
    /// likewise
    pub(super) dosing: Option<Dosing>,
    pub(super) cloud: Option<CloudState>,
    /// newest first
    pub(super) messages: Vec<Message>,
    /// the rule file that the user is asked to edit
    pub(super) rule_to_try: String,
}
