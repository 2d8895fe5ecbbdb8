//! Commands that ask a running box, by its local socket.

pub mod output;
pub mod status;
pub mod tail;
#[cfg(feature = "screen")]
pub mod top;
#[cfg(not(feature = "screen"))]
pub mod top {
    //! `tidegate top` in a build without it.

    /// Says that this build has no screen.
    ///
    /// # Errors
    /// Always.
    pub fn top(_: crate::cli::args::TopArgs) -> Result<(), crate::cli::Failure> {
        let error = anyhow::anyhow!(
            "this build has no `top`; build it with `--features screen`, or use `tidegate status`"
        );
        Err(crate::cli::Failure::Failed(error))
    }
}

use super::args::{ConfigArg, LogCommandArgs, ReloadArgs};
use super::{Failure, find_config, print};
use crate::config;
use crate::management::client::Client;
use crate::management::command::log::SetLevel;
use crate::management::command::reload::Reload;
use crate::management::managed_box::Compared;

/// The way to the box of this configuration.
fn connect(config: ConfigArg) -> Result<Client, Failure> {
    let refused = |diagnostic| Failure::Refused(vec![diagnostic]);
    let path = find_config(config.config).map_err(refused)?;
    let data_dir = config::data_dir(&path).map_err(refused)?;
    Ok(Client::connect(&data_dir)?)
}

/// `tidegate reload`: says what a restart would change.
///
/// # Errors
/// When no box answers, the file is wrong, or the box has to be restarted to use it.
pub fn reload(args: ReloadArgs) -> Result<(), Failure> {
    let answer = connect(args.config)?.ask(&Reload {}, |()| true)?;
    let Some(Compared { file, changed, wrong }) = answer else { return Ok(()) };
    if !wrong.is_empty() {
        return Err(Failure::Refused(wrong));
    }
    if changed.is_empty() {
        return print(&format!("nothing to do: the box runs with what is in {file}\n"));
    }
    print(&format!("{file} has changed; restart the box to use it (nothing was changed now)\n"))?;
    changed.iter().try_for_each(|part| print(&format!("  {part}\n")))?;
    Err(Failure::NeedsAPerson)
}

/// `tidegate log`: changes what the box logs.
///
/// # Errors
/// When no box answers, or it does not understand the level.
pub fn log(args: LogCommandArgs) -> Result<(), Failure> {
    let LogCommandArgs { level, config, lasting } = args;
    let answer = connect(config)?.ask(&SetLevel { level, lasting }, |()| true)?;
    let Some(now) = answer else { return Ok(()) };
    let until = match lasting {
        _ if now.level == now.started_with => "as it was started with".to_owned(),
        Some(lasting) => format!("for {lasting}, then {} again", now.started_with),
        None => format!("until it starts again; it was started with {}", now.started_with),
    };
    print(&format!("the box logs {} ({until})\n", now.level))
}
