//! The answers of all workers to one question of ours.

use std::cell::RefCell;
use std::rc::Rc;

use crate::ipc::gather::Gather;
use crate::ipc::messages::RequestId;
use crate::worker::peers::Peers;
use crate::worker::peers::requests::{Question, Waiting};

impl Peers {
    /// Begins to gather answers. The question is answered when all are there.
    pub(in crate::worker) fn ask_gather(self: &Rc<Self>) -> (Question<()>, Rc<RefCell<Gather>>) {
        let gather = Rc::new(RefCell::new(Gather::of(self.settings.in_cluster)));
        let kept = Rc::clone(&gather);
        (self.ask(|sender| Waiting::Gather(sender, kept)), gather)
    }

    /// Something came for those that are gathered under this number, if they still are.
    pub(in crate::worker) fn gathered(&self, id: RequestId, add: impl FnOnce(&mut Gather)) {
        let mut waiting = self.requests.waiting.borrow_mut();
        let Some(Waiting::Gather(_, gather)) = waiting.get(&id) else { return };
        let mut gather = gather.borrow_mut();
        add(&mut gather);
        let is_whole = gather.is_whole();
        drop(gather);
        if is_whole && let Some(Waiting::Gather(sender, _)) = waiting.remove(&id) {
            // Who asked may have given up.
            let _ = sender.send(());
        }
    }
}
