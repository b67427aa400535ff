//! For the tests of handlers: a stand-in for the worker, which writes down what it was asked for.
//!
//! ```
//! use wsd::api::{Frame, Handler, Opcode};
//! use wsd::testing::{FakeWorker, Sent};
//!
//! let worker = FakeWorker::new(0, 1);
//! let client = worker.client(7);
//! wsd::handler::Echo.on_message(&worker.context(), Frame::new(client, Opcode::Text, "hello"));
//! assert_eq!(worker.take(), [Sent::Push(client, "hello".into())]);
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;

use super::rooms::{Belongings, Call, Change, Member, Publish, Tally, Topic};
use super::{
    Context, Info, LocalFuture, Message, Opcode, Payload, ProcessEvent, ProcessId, Reactor,
    TaskError, Verdict,
};
use crate::fd::{Fd, Slot, WorkerId};

/// One thing the handler asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// A push to a client, confirmed or not.
    Push(Fd, Message<'static>),
    /// A broadcast, whoever it leaves out.
    Broadcast(Message<'static>),
    /// A message to another worker.
    ToWorker(Slot, Bytes),
    /// A close of a client, with its code and reason.
    Close(Fd, u16, String),
    /// Whether the sweep for idle clients is to leave a client alone.
    Protect(Fd, bool),
    /// A change of a client's rooms, user, session or expiry.
    Change(Fd, Change),
    /// A message to the members of these rooms or users, and whom it leaves out.
    Publish(Vec<Topic>, Option<Fd>, Message<'static>),
    /// A message to the members that this worker has.
    PublishHere(Vec<Topic>, Message<'static>),
}

/// A worker that has no process, no sockets and no clients: each push is `queued`, each client
/// that is asked about is unknown, and a blocking job runs at once in the caller's thread. Each
/// client can join rooms, be bound and have a session, and is a member for as long as it did not
/// leave.
pub struct FakeWorker {
    worker: WorkerId,
    worker_num: u16,
    sent: RefCell<Vec<Sent>>,
    spawned: RefCell<Vec<LocalFuture<()>>>,
    clients: RefCell<BTreeMap<Fd, Fake>>,
}

/// What a client of the stand-in has.
#[derive(Default)]
struct Fake {
    topics: BTreeSet<Topic>,
    session: Option<String>,
}

impl FakeWorker {
    /// The first worker of a slot, in a server of `worker_num` workers.
    pub fn new(slot: u8, worker_num: u16) -> Rc<FakeWorker> {
        FakeWorker::of(WorkerId { slot: Slot(slot), epoch: 1 }, worker_num)
    }

    /// A worker of that identity.
    pub fn of(worker: WorkerId, worker_num: u16) -> Rc<FakeWorker> {
        Rc::new(FakeWorker {
            worker,
            worker_num,
            sent: RefCell::default(),
            spawned: RefCell::default(),
            clients: RefCell::default(),
        })
    }

    /// What a handler of this worker is given.
    pub fn context(self: &Rc<FakeWorker>) -> Context {
        Context::new(self.clone())
    }

    /// What was asked for since the last call.
    pub fn take(&self) -> Vec<Sent> {
        self.sent.take()
    }

    /// How many futures, timers among them, were spawned since the last call. They are dropped.
    pub fn spawned(&self) -> usize {
        self.spawned.take().len()
    }

    /// Polls what was spawned until nothing of it goes on by itself. What waits for a timer or
    /// another thread is kept for the next call.
    pub fn run(&self) {
        let mut waiting = Vec::new();
        loop {
            let spawned = self.spawned.take();
            if spawned.is_empty() {
                break;
            }
            for mut future in spawned {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                if future.as_mut().poll(&mut context).is_pending() {
                    waiting.push(future);
                }
            }
        }
        self.spawned.replace(waiting);
    }

    /// The number of a client that this worker's slot opened.
    ///
    /// # Panics
    /// If the serial is 0 or above [`SERIAL_MAX`](crate::fd::SERIAL_MAX).
    #[expect(clippy::expect_used, reason = "a test's wrong number is the test's fault")]
    pub fn client(&self, serial: u64) -> Fd {
        Fd::new(0, self.worker.slot, serial).expect("a serial is 1 to SERIAL_MAX")
    }

    /// The clients that are in one of these, in the order of their numbers.
    fn members_of(&self, topics: &[Topic], except: Option<Fd>) -> Vec<Fd> {
        let clients = self.clients.borrow();
        let is_in = |fake: &Fake| topics.iter().any(|topic| fake.topics.contains(topic));
        let members = clients.iter().filter(|(_, fake)| is_in(fake)).map(|(fd, _)| *fd);
        members.filter(|fd| Some(*fd) != except).collect()
    }

    fn tally(&self, topics: &[Topic], except: Option<Fd>) -> Tally {
        let queued = self.members_of(topics, except).len() as u64;
        Tally { queued, workers: 1, answered: 1, ..Tally::default() }
    }

    fn uid_of(&self, fd: Fd) -> Option<String> {
        let clients = self.clients.borrow();
        let user = clients.get(&fd)?.topics.iter().find(|topic| topic.is_user())?;
        Some(user.name().to_owned())
    }
}

impl super::Sealed for FakeWorker {}

impl Reactor for FakeWorker {
    fn worker(&self) -> WorkerId {
        self.worker
    }

    fn worker_num(&self) -> u16 {
        self.worker_num
    }

    fn push(&self, fd: Fd, opcode: Opcode, data: &Payload<'_>) -> Verdict {
        let message = Message { opcode, data: data.to_bytes().into() };
        self.sent.borrow_mut().push(Sent::Push(fd, message));
        Verdict::Queued
    }

    fn push_confirmed(&self, fd: Fd, message: Message<'_>) -> LocalFuture<Verdict> {
        let verdict = self.push(fd, message.opcode, &message.data);
        Box::pin(std::future::ready(verdict))
    }

    fn broadcast(&self, message: Message<'_>, _except: Option<Fd>) {
        self.sent.borrow_mut().push(Sent::Broadcast(message.into_owned()));
    }

    fn close(&self, fd: Fd, code: u16, reason: &str) -> Verdict {
        self.sent.borrow_mut().push(Sent::Close(fd, code, reason.to_owned()));
        Verdict::Queued
    }

    fn protect(&self, fd: Fd, on: bool) -> Verdict {
        self.sent.borrow_mut().push(Sent::Protect(fd, on));
        Verdict::Queued
    }

    fn change(&self, fd: Fd, change: Change) -> Verdict {
        let mut clients = self.clients.borrow_mut();
        let fake = clients.entry(fd).or_default();
        match &change {
            Change::Bind { .. } | Change::Unbind => fake.topics.retain(|topic| !topic.is_user()),
            Change::Leave { room } => drop(fake.topics.remove(&Topic::room(room))),
            Change::Session(json) => fake.session.clone_from(json),
            Change::Join { .. } | Change::ExpireAt(_) => {}
        }
        fake.topics.extend(change.joins());
        self.sent.borrow_mut().push(Sent::Change(fd, change));
        Verdict::Queued
    }

    fn change_confirmed(&self, fd: Fd, change: Change) -> LocalFuture<Verdict> {
        Box::pin(std::future::ready(self.change(fd, change)))
    }

    fn belongings(&self, fd: Fd) -> Option<Belongings> {
        let uid = self.uid_of(fd);
        let clients = self.clients.borrow();
        let fake = clients.get(&fd)?;
        let rooms = fake.topics.iter().filter(|topic| !topic.is_user());
        let rooms = rooms.map(|topic| topic.name().to_owned()).collect();
        Some(Belongings { rooms, uid, session: fake.session.clone() })
    }

    fn publish(&self, publish: Publish) -> Verdict {
        let Publish { topics, except, opcode, data } = publish;
        let message = Message { opcode, data: data.into() };
        self.sent.borrow_mut().push(Sent::Publish(topics, except, message));
        Verdict::Relayed
    }

    fn publish_here(&self, publish: Publish) -> Tally {
        let tally = self.tally(&publish.topics, None);
        let Publish { topics, opcode, data, .. } = publish;
        self.sent
            .borrow_mut()
            .push(Sent::PublishHere(topics, Message { opcode, data: data.into() }));
        tally
    }

    fn publish_confirmed(&self, publish: Publish) -> LocalFuture<Result<Tally, Verdict>> {
        let tally = self.tally(&publish.topics, publish.except);
        self.publish(publish);
        Box::pin(std::future::ready(Ok(tally)))
    }

    fn count(&self, call: Call, reason: &str) -> LocalFuture<Tally> {
        let except = Fd::try_from(call.except).ok();
        let tally = self.tally(&call.topics, except);
        if let super::rooms::Act::Close { code, .. } = call.act {
            for fd in self.members_of(&call.topics, except) {
                self.close(fd, code, reason);
            }
        }
        Box::pin(std::future::ready(tally))
    }

    fn members(&self, topic: Topic) -> LocalFuture<Vec<Member>> {
        let members = self.members_of(&[topic], None).into_iter();
        let members = members.map(|fd| Member::new(fd, self.uid_of(fd))).collect();
        Box::pin(std::future::ready(members))
    }

    fn info(&self, _fd: Fd) -> LocalFuture<Option<Info>> {
        Box::pin(std::future::ready(None))
    }

    fn connections(&self) -> LocalFuture<Vec<Info>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn send_to_worker(&self, to: Slot, data: Bytes) -> Verdict {
        self.sent.borrow_mut().push(Sent::ToWorker(to, data));
        Verdict::Relayed
    }

    fn spawn(&self, future: LocalFuture<()>) {
        self.spawned.borrow_mut().push(future);
    }

    fn task(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), TaskError> {
        job();
        Ok(())
    }

    fn start_process(&self, _: ProcessId, _: Vec<std::os::fd::OwnedFd>) {}

    fn kill_process(&self, _: ProcessId) {}

    fn process_event(&self) -> LocalFuture<ProcessEvent> {
        Box::pin(std::future::pending())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_knows_who_is_in_a_room_and_whose_a_client_is() {
        let worker = FakeWorker::new(0, 1);
        let (ctx, one, two) = (worker.context(), worker.client(1), worker.client(2));
        assert_eq!(ctx.join(one, "lobby"), Verdict::Queued);
        ctx.join(two, "lobby");
        ctx.bind(two, "ann");
        ctx.bind(two, "bob");
        assert_eq!((ctx.rooms(two), ctx.uid(two)), (vec!["lobby".into()], Some("bob".into())));
        ctx.set_session(one, &vec![1, 2]).unwrap();
        assert_eq!(ctx.session::<Vec<u8>>(one), Ok(Some(vec![1, 2])));
        worker.take();
        ctx.publish_except("lobby", one, "hello");
        let to = vec![Topic::room("lobby")];
        assert_eq!(worker.take(), [Sent::Publish(to, Some(one), "hello".into())]);
        ctx.leave(one, "lobby");
        assert_eq!(worker.members_of(&[Topic::room("lobby")], None), [two]);
        assert_eq!(worker.members_of(&[Topic::user("ann"), Topic::user("bob")], None), [two]);
    }
}
