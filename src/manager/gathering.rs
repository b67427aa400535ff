//! What control commands ask of rooms and users: a call to all workers that have members, whose
//! answers are gathered here.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::relay::message::Wide;
use super::{Exchange, Shared};
use crate::api::rooms::{Act, Call, MEMBERS_MAX, Member, Tally, Topic};
use crate::fd::Fd;
use crate::ipc::gather::Gather;
use crate::ipc::messages::{ManagerToWorker, Origin, Reach, RequestId};
use crate::ipc::packet::Body;

/// For the workers to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the workers to say which connections have users, where that is shown beside other things:
/// longer than a new manager keeps a question until it knows who has which clients.
const USERS_PATIENCE: Duration = Duration::from_millis(1500);

/// Every member that a worker lists.
const ALL: Act = Act::List { after: 0, limit: MEMBERS_MAX as u32 };
/// Rooms in one page.
pub const ROOMS_PAGE: usize = 4096;

/// What was gathered, also where some did not answer.
pub struct Gathered {
    pub tally: Tally,
    pub members: Vec<Member>,
    /// Rooms and how many members each has.
    pub rooms: BTreeMap<Topic, u64>,
}

/// Asks the members of some topics for something and waits for the answers: those of this node
/// alone, if `here`.
pub async fn ask(manager: &Shared, call: Call, body: &[u8], here: bool) -> Gathered {
    let (id, whole) = match here {
        true => manager.borrow_mut().exchange.begin_call_here(call, body),
        false => manager.borrow_mut().exchange.begin_call(call, body),
    };
    wait(PATIENCE, manager, id, whole).await
}

/// Waits for the answers to a call.
pub async fn wait(
    patience: Duration,
    manager: &Shared,
    id: RequestId,
    whole: oneshot::Receiver<()>,
) -> Gathered {
    // What has come by then is told in either case.
    let _ = timeout(patience, whole).await;
    let (tally, members, rooms) = manager.borrow_mut().exchange.commands.end_gather(id).finish();
    Gathered { tally, members, rooms }
}

/// The members that all of some topics have.
pub async fn members(manager: &Shared, topics: Vec<Topic>, here: bool) -> Gathered {
    ask(manager, call(topics, ALL, None), &[], here).await
}

/// The users of connections, as far as the workers say at once, and which of these did.
pub async fn users(manager: &Shared) -> (Tally, HashMap<Fd, String>) {
    let call = Call { topics: Vec::new(), except: 0, act: ALL };
    let (id, whole) = manager.borrow_mut().exchange.begin_call_here(call, &[]);
    let Gathered { tally, members, .. } = wait(USERS_PATIENCE, manager, id, whole).await;
    let users = members.into_iter().filter_map(|member| Some((member.fd, member.uid?)));
    (tally, users.collect())
}

/// The rooms with the smallest names above one, or from the first on, and how many members each
/// has. A page that is not full is the last.
pub async fn rooms(
    manager: &Shared,
    after: Option<&Topic>,
    here: bool,
) -> (Tally, Vec<(Topic, u64)>) {
    let call =
        Call { topics: Vec::new(), except: 0, act: Act::Rooms { limit: ROOMS_PAGE as u32 } };
    let after = after.map_or("", Topic::as_str);
    let Gathered { tally, rooms, .. } = ask(manager, call, after.as_bytes(), here).await;
    // What is beyond the page some worker may not have told.
    (tally, rooms.into_iter().take(ROOMS_PAGE).collect())
}

/// A call of a control command.
pub fn call(topics: Vec<Topic>, act: Act, except: Option<Fd>) -> Call {
    Call { topics, except: except.map_or(0, Fd::as_u64), act }
}

/// A call of ours as the workers are told it.
fn wide(id: RequestId, call: Call) -> Wide {
    let origin = Origin::Control;
    let message = ManagerToWorker::Call { origin, id, only: Vec::new(), call };
    Wide { sender: None, message, reach: Reach::AllBut(Vec::new()) }
}

impl Exchange {
    fn begin_call(&mut self, call: Call, body: &[u8]) -> (RequestId, oneshot::Receiver<()>) {
        let (id, receiver) = self.commands.begin_gather(Gather::of(self.cluster.is_some()));
        self.spread_everywhere(wide(id, call), Body::Inline(body));
        (id, receiver)
    }

    /// Asks the members of this node alone.
    pub fn begin_call_here(
        &mut self,
        call: Call,
        body: &[u8],
    ) -> (RequestId, oneshot::Receiver<()>) {
        let (id, receiver) = self.commands.begin_gather(Gather::default());
        self.spread(wide(id, call), Body::Inline(body));
        (id, receiver)
    }
}
