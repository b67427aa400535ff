//! The links of a worker's processes, found by process or by place.

use std::cell::RefCell;
use std::rc::Rc;

use super::link::Link;
use crate::api::ProcessId;

/// The links of the worker's processes.
#[derive(Default)]
pub struct Links(RefCell<Vec<Rc<Link>>>);

impl Links {
    pub fn add(&self, link: Rc<Link>) {
        self.0.borrow_mut().push(link);
    }

    pub fn remove(&self, id: ProcessId) {
        self.0.borrow_mut().retain(|link| link.id != id);
    }

    pub fn get(&self, id: ProcessId) -> Option<Rc<Link>> {
        self.0.borrow().iter().find(|link| link.id == id).cloned()
    }

    /// The process of a place that was started last.
    pub fn newest_of(&self, place: u16) -> Option<Rc<Link>> {
        let links = self.0.borrow();
        let here = links.iter().filter(|link| link.id.place == place);
        here.max_by_key(|link| link.id.epoch).cloned()
    }

    pub fn all(&self) -> Vec<Rc<Link>> {
        self.0.borrow().clone()
    }

    /// Wakes the links of a place; while one process relieves another there are two.
    pub fn wake(&self, place: u16) {
        self.0.borrow().iter().filter(|link| link.id.place == place).for_each(|link| {
            link.wake.notify_one();
        });
    }
}
