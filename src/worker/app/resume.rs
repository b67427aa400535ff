//! Bytes behind the head of a request, and going on with a connection whose handler has ended.

use std::rc::Rc;

use super::App;
use crate::worker::clients::connection::Stage;
use crate::worker::clients::key::Key;

impl App {
    /// Goes on with a connection whose handler has ended.
    pub(in crate::worker) fn resume(self: &Rc<Self>, key: Key) {
        loop {
            let mut tail = {
                let mut table = self.table.borrow_mut();
                let Some(connection) = table.get_mut(key) else { return };
                if connection.busy || connection.stage == Stage::Moving {
                    return;
                }
                if connection.stage == Stage::Ended {
                    drop(table);
                    return self.finish(key);
                }
                if connection.held || connection.slowed {
                    return;
                }
                let tail = connection.take_tail();
                self.reckon(connection);
                tail
            };
            if tail.is_empty() {
                break;
            }
            self.feed_behind_head(key, &mut tail);
        }
        if let Some(connection) = self.table.borrow_mut().get_mut(key)
            && !connection.busy
            && std::mem::replace(&mut connection.paused, false)
        {
            self.rewatch(key, connection);
        }
    }

    /// What bytes mean depends on where their connection stands.
    pub(in crate::worker) fn feed_behind_head(self: &Rc<Self>, key: Key, bytes: &mut [u8]) {
        let stage = self.table.borrow().get(key).map(|connection| connection.stage);
        match stage {
            Some(Stage::Handshaking) => self.keep_tail(key, bytes),
            Some(Stage::Open | Stage::Closing) => self.feed_frames(key, bytes),
            Some(Stage::Lingering) => self.linger_on(key),
            // No handler runs while a head is read, so nothing is kept behind one.
            Some(Stage::Head | Stage::Parting | Stage::Moving | Stage::Ended) | None => {}
        }
    }
}
