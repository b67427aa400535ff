//! Who may ask what on the control socket, by the user of the process at the other end
//! (SO_PEERCRED).

use nix::unistd::{Uid, geteuid};

use crate::config::Config;
use crate::error::Result;
use crate::ipc::control::Request;

/// The users that are answered at all.
#[derive(Debug, Clone, Copy)]
pub struct Peers {
    /// Whose server it is.
    owner: Uid,
    /// As whom its application processes run.
    app: Uid,
}

/// What a process at the other end may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything: it is root's, or its user owns the server.
    Whole,
    /// What concerns clients: it runs as the application does.
    Clients,
}

impl Peers {
    /// Of a manager that still has the rights of the master.
    pub fn of(config: &Config) -> Result<Peers> {
        Ok(Peers { owner: geteuid(), app: config.app_rights().ids()?.0 })
    }

    /// What a process of that user may ask; `None`: nothing.
    pub fn access(&self, uid: Uid) -> Option<Access> {
        match uid {
            uid if uid.is_root() || uid == self.owner => Some(Access::Whole),
            uid if uid == self.app => Some(Access::Clients),
            _ => None,
        }
    }

    /// Why a user is refused, for that user.
    pub fn refusal(&self, uid: Uid) -> String {
        let owner = self.owner;
        format!("user {uid} may not control this server: only root and user {owner} may")
    }

    /// Why a user of the application is refused what does not concern clients.
    pub fn refusal_of(&self, request: &Request) -> String {
        let (app, owner) = (self.app, self.owner);
        let what = match request {
            Request::Reload {} => "reload",
            Request::Upgrade {} => "upgrade",
            Request::Stop { .. } => "stop",
            _ => "ask that of",
        };
        format!(
            "user {app}, as which the application runs, may push, ask and close, but not {what} \
             this server: only root and user {owner} may"
        )
    }
}

impl Access {
    /// Whether a request may be made.
    pub fn allows(self, request: &Request) -> bool {
        let concerns_clients = match request {
            Request::Ping {}
            | Request::Status {}
            | Request::Slow {}
            | Request::Connections { .. }
            | Request::Nodes {}
            | Request::Rooms { .. }
            | Request::Members { .. }
            | Request::Publish { .. }
            | Request::CloseUser { .. }
            | Request::Join { .. }
            | Request::Leave { .. }
            | Request::Bind { .. }
            | Request::Session { .. }
            | Request::Push { .. }
            | Request::Broadcast { .. }
            | Request::Close { .. }
            | Request::Info { .. }
            | Request::Wait { .. } => true,
            Request::Reload {}
            | Request::Stop { .. }
            | Request::Reopen {}
            | Request::Drain { .. }
            | Request::Upgrade {} => false,
        };
        concerns_clients || self == Access::Whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::control::StopKind;

    #[test]
    fn root_and_the_owner_may_ask_everything_the_application_what_concerns_clients() {
        let peers = Peers { owner: Uid::from_raw(7), app: Uid::from_raw(8) };
        let access = |uid| peers.access(Uid::from_raw(uid));
        assert_eq!([access(0), access(7)], [Some(Access::Whole); 2]);
        assert_eq!((access(8), access(9)), (Some(Access::Clients), None));
        let stop = Request::Stop { mode: StopKind::Graceful };
        for owners in [stop, Request::Reload {}, Request::Upgrade {}, Request::Reopen {}] {
            assert!(Access::Whole.allows(&owners) && !Access::Clients.allows(&owners));
        }
        assert!(Access::Clients.allows(&Request::Status {}));
        // A server that runs as its own application has one user, who owns it.
        let one = Peers { owner: Uid::from_raw(7), app: Uid::from_raw(7) };
        assert_eq!(one.access(Uid::from_raw(7)), Some(Access::Whole));
    }
}
