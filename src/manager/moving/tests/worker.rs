//! A worker of the play: what it does with what it hears, and what its handlers send.

use super::world::{Broken, Down, Here, Message, Up, World, lease};
use crate::fd::{Fd, WorkerId};
use crate::ipc::messages::{Left, PassId};

/// Connections of a pass, and of a batch.
const PASS_MAX: usize = 3;
const BATCH_MAX: usize = 2;

impl World {
    pub fn grow_busy(&mut self, id: WorkerId) {
        if !self.faults.busy {
            return;
        }
        let at_rest: Vec<u64> = {
            let worker = &self.workers[&id];
            worker.clients.iter().filter(|(_, it)| !it.arriving).map(|(fd, _)| *fd).collect()
        };
        let index = self.below(at_rest.len() as u64) as usize;
        if let Some(fd) = at_rest.get(index) {
            self.worker(id).clients.get_mut(fd).expect("it is here").busy = true;
        }
    }

    /// A handler ends, or patience does.
    pub fn come_to_rest(&mut self, id: WorkerId) {
        let impatient = self.one_in(3);
        let worker = self.worker(id);
        if worker.watches && worker.patient && impatient {
            worker.patient = false;
        } else if let Some(here) = worker.clients.values_mut().find(|it| it.busy) {
            here.busy = false;
        } else {
            return;
        }
        if worker.watches {
            worker.watches = false;
            worker.up.data.push_back(Up::CanGive);
        }
    }

    pub fn send(&mut self, id: WorkerId) {
        if self.sent.len() > 120 {
            return;
        }
        let fds: Vec<u64> = self.clients.keys().copied().collect();
        let index = self.below(fds.len() as u64) as usize;
        let fd = if self.one_in(4) { None } else { fds.get(index).copied() };
        let worker = self.worker(id);
        worker.sent += 1;
        let message = Message { sender: id, number: worker.sent, fd };
        self.sent.push(message);
        self.note(|| format!("{id} sends {message:?}"));
        match fd {
            Some(fd) => self.push(id, fd, message),
            None => self.broadcast_by(id, message),
        }
    }

    pub fn push(&mut self, id: WorkerId, fd: u64, message: Message) {
        let parks_nothing = self.is_broken(Broken::DefersNothing);
        let worker = self.worker(id);
        match worker.clients.get(&fd) {
            Some(here) if !here.arriving => return self.write(id, fd, message),
            Some(_) if !parks_nothing => {
                if let Some(pass) = worker.transit.defers(fd) {
                    assert!(worker.transit.defer(pass, message, 1, usize::MAX));
                    return;
                }
            }
            _ => {}
        }
        if let Some(to) = worker.direct.filter(|to| is_of(*to, fd)) {
            self.worker(to).peer.push_back(message);
            return;
        }
        self.relay(id, message);
    }

    pub fn relay(&mut self, id: WorkerId, message: Message) {
        let worker = self.worker(id);
        if worker.up.is_full() {
            self.excused.insert(message.name());
        } else {
            worker.up.data.push_back(Up::Message(message));
        }
    }

    pub fn broadcast_by(&mut self, id: WorkerId, message: Message) {
        self.go_indirect(id);
        let here: Vec<u64> = {
            let clients = &self.workers[&id].clients;
            clients.iter().filter(|(_, it)| !it.arriving).map(|(fd, _)| *fd).collect()
        };
        for fd in here {
            self.write(id, fd, message);
        }
        if !self.is_broken(Broken::DefersNothing) {
            let worker = self.worker(id);
            let deferring: Vec<(PassId, u64)> = worker
                .transit
                .deferring()
                .flat_map(|(pass, fds)| fds.iter().map(move |fd| (pass, *fd)))
                .collect();
            for (pass, fd) in deferring {
                let send = Message { fd: Some(fd), ..message };
                assert!(worker.transit.defer(pass, send, 1, usize::MAX));
            }
        }
        self.relay(id, message);
    }

    pub fn go_indirect(&mut self, id: WorkerId) {
        let worker = self.worker(id);
        if worker.direct.take().is_some() {
            worker.up.data.push_back(Up::Indirect);
        }
    }

    pub fn reads_peer(&mut self, id: WorkerId) {
        if let Some(message) = self.worker(id).peer.pop_front() {
            self.worker_hears(id, Down::Message(message));
        }
    }

    pub fn worker_reads(&mut self, id: WorkerId) {
        if let Some(down) = self.worker(id).down.kernel.pop_front() {
            self.note(|| format!("{id} hears {down:?}"));
            self.worker_hears(id, down);
        }
    }

    pub fn worker_hears(&mut self, id: WorkerId, down: Down) {
        match down {
            Down::Message(message) => {
                let to: Vec<u64> = {
                    let clients = self.workers[&id].clients.keys();
                    clients.copied().filter(|fd| message.fd.is_none_or(|to| to == *fd)).collect()
                };
                for fd in to {
                    self.write(id, fd, message);
                }
            }
            Down::Missed(message) => {
                let clients = &self.workers[&id].clients;
                let arriving = clients.iter().filter(|(_, it)| it.arriving);
                for fd in arriving.map(|(fd, _)| *fd).collect::<Vec<_>>() {
                    self.write(id, fd, message);
                }
            }
            Down::HandOver => {
                let worker = self.worker(id);
                worker.handing = true;
                worker.up.data.push_back(Up::CanGive);
            }
            Down::Give { pass } => self.give(id, pass),
            Down::Adopt { pass, from, fds } => self.adopt(id, pass, from, &fds),
            Down::Take { pass } => {
                let worker = self.worker(id);
                let fds = worker.transit.take(pass);
                worker.up.data.push_back(Up::Adopted { pass, fds });
                if self.is_broken(Broken::ServesWithoutOwn) {
                    self.own(id, pass);
                }
            }
            Down::Settled { pass, taken } => self.settled(id, pass, &taken),
            Down::Own { pass } => self.own(id, pass),
            Down::Drain => self.worker(id).handing = true,
            Down::WhoAreYou { manager } => self.introduce(id, manager),
            Down::EndDirect => self.go_indirect(id),
            Down::PeerLeft => {
                while !self.worker(id).peer.is_empty() {
                    self.reads_peer(id);
                }
                self.worker(id).up.data.push_back(Up::PeerEnded);
            }
        }
    }

    pub fn give(&mut self, id: WorkerId, pass: PassId) {
        let (all, in_batch) = (self.below(PASS_MAX as u64) as usize + 1, BATCH_MAX);
        let worker = self.worker(id);
        if !worker.transit.give(pass) {
            return self.violate(format!("{id} is to give {pass} and has given another"));
        }
        let movable = |here: &Here| !here.busy && !here.arriving;
        let can: Vec<u64> =
            worker.clients.iter().filter(|(_, it)| movable(it)).map(|(fd, _)| *fd).collect();
        let given = &can[..can.len().min(all)];
        for fd in given {
            worker.clients.remove(fd);
            worker.transit.gives(*fd);
        }
        for fds in given.chunks(in_batch) {
            worker.up.data.push_back(Up::Moving { pass, fds: fds.to_vec() });
        }
        let busy: Vec<u64> =
            worker.clients.iter().filter(|(_, it)| it.busy).map(|(fd, _)| *fd).collect();
        let left = match () {
            () if can.len() > given.len() => Left::More,
            () if !busy.is_empty() && worker.patient => Left::Busy,
            () => Left::Nothing,
        };
        worker.watches = !busy.is_empty() && left != Left::More;
        if left == Left::Nothing && !busy.is_empty() {
            worker.up.data.push_back(Up::Stays { fds: busy });
        }
        worker.transit.gave();
        worker.up.data.push_back(Up::Gave { pass, left });
    }

    pub fn adopt(&mut self, id: WorkerId, pass: PassId, from: WorkerId, fds: &[u64]) {
        for fd in fds {
            if self.faults.partly_refused && self.one_in(4) {
                continue;
            }
            let worker = self.worker(id);
            worker.clients.insert(*fd, Here { arriving: true, busy: false });
            worker.transit.adopt(pass, from, *fd);
        }
    }

    pub fn settled(&mut self, id: WorkerId, pass: PassId, taken: &[u64]) {
        let lets_go = self.is_broken(Broken::LetsGoWhenGiven);
        let worker = self.worker(id);
        let Some(settled) = worker.transit.settle(id, pass, taken) else { return };
        if settled.back.is_empty() {
            return;
        }
        if !lets_go {
            for fd in &settled.back {
                worker.clients.insert(*fd, Here { arriving: true, busy: false });
            }
        }
        worker.up.data.push_back(Up::Adopted { pass, fds: settled.back });
        if self.is_broken(Broken::ServesWhatCameBack) {
            self.own(id, pass);
        }
    }

    pub fn own(&mut self, id: WorkerId, pass: PassId) {
        let worker = self.worker(id);
        let (fds, sends) = worker.transit.own(pass);
        for fd in &fds {
            if let Some(here) = worker.clients.get_mut(fd) {
                here.arriving = false;
            }
        }
        if worker.handing && !fds.is_empty() {
            worker.up.data.push_back(Up::CanGive);
        }
        for send in sends {
            self.write(id, send.fd.expect("a client"), send);
        }
    }

    pub fn introduce(&mut self, id: WorkerId, manager: u32) {
        self.go_indirect(id);
        let worker = self.worker(id);
        let said = worker.transit.introduce();
        if let Some((pass, fds)) = said.gives {
            worker.up.data.push_back(Up::Gives { manager, pass, fds });
        }
        for it in said.holds {
            let (of, fds, answered) = ((it.pass, it.from), it.fds, it.answered);
            worker.up.data.push_back(Up::Holds { manager, of, fds, answered });
        }
        let foreign = worker.clients.iter().filter(|(fd, it)| !it.arriving && !is_of(id, **fd));
        let fds = foreign.map(|(fd, _)| *fd).collect();
        worker.up.data.push_back(Up::Owns { manager, fds });
    }
}

/// Whether a number was leased to this worker.
fn is_of(id: WorkerId, fd: u64) -> bool {
    let (fd, (first, last)) = (Fd::try_from(fd).expect("a number"), lease(id));
    fd.slot() == id.slot && (first..=last).contains(&fd.serial())
}
