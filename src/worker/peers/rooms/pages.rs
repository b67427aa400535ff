//! Lists of members and of rooms, of every worker together.

use std::rc::Rc;

use bytes::Bytes;

use crate::api::LocalFuture;
use crate::api::rooms::{Act, Call, MEMBERS_MAX, Member, Tally, Topic};
use crate::worker::peers::Peers;

impl Peers {
    /// The members of a topic, wherever they are.
    pub(in crate::worker) fn members_everywhere(
        self: &Rc<Self>,
        topic: Topic,
    ) -> LocalFuture<Vec<Member>> {
        let page = self.members_page(vec![topic], 0, MEMBERS_MAX as u32);
        Box::pin(async move { page.await.1 })
    }

    /// Those that are in all of some topics, wherever they are: of each worker at most so many,
    /// with the smallest numbers above one. The tally says whether every worker has answered.
    pub(in crate::worker) fn members_page(
        self: &Rc<Self>,
        topics: Vec<Topic>,
        after: u64,
        limit: u32,
    ) -> LocalFuture<(Tally, Vec<Member>)> {
        let (question, gather) = self.ask_gather();
        let call = Call { topics, except: 0, act: Act::List { after, limit } };
        self.ask_all(call, &Bytes::new(), Some(question.id));
        Box::pin(async move {
            question.answer().await;
            let (tally, members, _) = gather.take().finish();
            (tally, members)
        })
    }

    /// The rooms with members anywhere, and how many each has: those with the smallest names
    /// above one, or from the first on. The tally says whether every worker has answered.
    pub(in crate::worker) fn rooms_page(
        self: &Rc<Self>,
        after: Option<&str>,
        limit: u32,
    ) -> LocalFuture<(Tally, Vec<(Topic, u64)>)> {
        let (question, gather) = self.ask_gather();
        let call = Call { topics: Vec::new(), except: 0, act: Act::Rooms { limit } };
        let after =
            after.map_or(Bytes::new(), |room| Topic::room(room).as_str().to_owned().into());
        self.ask_all(call, &after, Some(question.id));
        Box::pin(async move {
            question.answer().await;
            let (tally, _, rooms) = gather.take().finish();
            // What is beyond the page some worker may not have told.
            (tally, rooms.into_iter().take(limit as usize).collect())
        })
    }
}
