//! Listening sockets: one SO_REUSEPORT socket for each slot and TCP address, one for each
//! `unix:` path and address of the API, made here, given to every worker of the slot, and closed
//! only when the address leaves the configuration.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::SockRef;

use super::bind::{backlog, is_lost, shared_tcp, tcp, unix, unix_mode, unlink};
use super::trusted_path::TrustedPath;
use crate::config::{Config, ListenAddr};
use crate::error::Result;
use crate::fd::Slot;
use crate::ipc::messages::{Listener, Purpose};
use crate::sys::path_walk::Missing;
use crate::sys::socket::{forget_shutdown, gate_options};

/// One listening socket.
#[derive(Debug)]
struct Held {
    listener: Listener,
    socket: OwnedFd,
    /// The options it was made with.
    options: Vec<Option<Vec<u8>>>,
}

impl Held {
    fn new(listener: Listener, socket: OwnedFd) -> Held {
        let options = gate_options(socket.as_fd());
        Held { listener, socket, options }
    }

    /// Makes the socket anew, with what is in its queue lost, where somebody has changed an option
    /// that keeps clients away.
    fn renew_if_changed(&mut self, config: &Config) -> Result<()> {
        if gate_options(self.socket.as_fd()) == self.options {
            return Ok(());
        }
        let address = &self.listener.address;
        tracing::error!(address, "a worker has changed what may come in: the socket is made anew");
        let Ok(parsed) = address.parse() else { return Ok(()) };
        self.socket = tcp(parsed, false, config)?.0;
        self.options = gate_options(self.socket.as_fd());
        Ok(())
    }
}

/// An entry of `listen` or of `api.listen`.
pub type Entry = (Purpose, String);

/// Every listening socket, by its entry and then the slot. A `unix:` entry and one of the API have
/// one socket, under slot 0, that all slots share.
#[derive(Debug, Default)]
pub struct Listeners {
    entries: BTreeMap<Entry, BTreeMap<u8, Held>>,
}

/// Every entry of a configuration with its address.
fn entries(config: &Config) -> impl Iterator<Item = (Entry, &ListenAddr)> {
    let clients = config.listen.iter().map(|addr| (Purpose::Clients, addr));
    let api = config.api.listen.iter().map(|addr| (Purpose::Api, addr));
    clients.chain(api).map(|(purpose, addr)| ((purpose, addr.to_string()), addr))
}

impl Listeners {
    /// Makes whatever `config` asks for and is not there yet. The answer names what was made, so
    /// that it can be taken back.
    ///
    /// # Errors
    /// When an address is taken or not ours; then nothing is left half made.
    pub fn ensure(&mut self, config: &Config) -> Result<Vec<(Entry, u8)>> {
        let mut made = Vec::new();
        for (entry, addr) in entries(config) {
            if let Err(error) = self.ensure_entry(entry, addr, config, &mut made) {
                self.remove(&made);
                return Err(error);
            }
        }
        Ok(made)
    }

    fn ensure_entry(
        &mut self,
        entry: Entry,
        addr: &ListenAddr,
        config: &Config,
        made: &mut Vec<(Entry, u8)>,
    ) -> Result<()> {
        let (purpose, written) = &entry;
        let slots = match (addr, purpose) {
            (ListenAddr::Tcp(_), Purpose::Clients) => config.worker_num,
            (ListenAddr::Unix(_), _) | (_, Purpose::Api) => 1,
        };
        for slot in (0..slots).filter_map(|slot| u8::try_from(slot).ok()) {
            let held = self.entries.entry(entry.clone()).or_default();
            if held.contains_key(&slot) && !is_lost(addr) {
                continue;
            }
            let (socket, address) = match addr {
                ListenAddr::Unix(path) => {
                    let mode = unix_mode(purpose, config);
                    (unix(written, path, mode, config)?, written.clone())
                }
                ListenAddr::Tcp(addr) if *purpose == Purpose::Api => shared_tcp(*addr, config)?,
                ListenAddr::Tcp(addr) => {
                    // Port 0: the first slot's choice is everyone's.
                    let chosen = held.get(&0).and_then(|held| held.listener.address.parse().ok());
                    tcp(chosen.unwrap_or(*addr), held.is_empty(), config)?
                }
            };
            let listener = Listener { entry: written.clone(), address, purpose: *purpose };
            held.insert(slot, Held::new(listener, socket));
            made.push((entry.clone(), slot));
        }
        Ok(())
    }

    /// Closes these.
    pub fn remove(&mut self, which: &[(Entry, u8)]) {
        for (entry, slot) in which {
            if let Some(held) = self.entries.get_mut(entry) {
                held.remove(slot);
            }
        }
        self.entries.retain(|_, held| !held.is_empty());
    }

    /// Closes the sockets of entries that `config` does not have any more, and gives those of the
    /// API their mode. Those of removed slots stay: their queues may hold clients, and a live
    /// worker accepts on them.
    pub fn retain(&mut self, config: &Config) {
        let wanted: Vec<Entry> = entries(config).map(|(entry, _)| entry).collect();
        for ((_, path), _) in self.entries.iter().filter(|(entry, _)| !wanted.contains(entry)) {
            unlink(path, config);
        }
        self.entries.retain(|entry, _| wanted.contains(entry));
        for ((purpose, written), addr) in entries(config) {
            let (Purpose::Api, ListenAddr::Unix(path)) = (purpose, addr) else { continue };
            let path = TrustedPath::new(&written, path, Missing::Fail, config);
            let mode = config.api.socket_mode.0;
            if let Err(error) = path.and_then(|path| path.set_socket_mode(mode)) {
                tracing::error!(%error, "a socket keeps its mode");
            }
        }
    }

    /// What a worker of `slot` accepts on, as far as `config` has it: descriptions and sockets.
    pub fn of_slot(&self, slot: Slot, config: &Config) -> (Vec<Listener>, Vec<BorrowedFd<'_>>) {
        let wanted = entries(config).filter_map(|(entry, _)| self.entries.get(&entry));
        wanted
            .filter_map(|held| held.get(&slot.0).or_else(|| shared(held)))
            .map(|held| (held.listener.clone(), held.socket.as_fd()))
            .unzip()
    }

    /// Has the sockets of `slot` listen, also where a worker that was taken over has shut one down,
    /// and let in whom they let in when they were made.
    pub fn revive(&mut self, slot: Slot, config: &Config) {
        let own = self.entries.values_mut().filter(|held| shared(held).is_none());
        for held in own.filter_map(|held| held.get_mut(&slot.0)) {
            if let Err(error) = held.renew_if_changed(config) {
                tracing::error!(%error, "a socket that was changed stays as it is");
            }
        }
        let (listeners, sockets) = self.of_slot(slot, config);
        for (listener, socket) in listeners.iter().zip(sockets) {
            let unshut = match listener.entry.starts_with("unix:") {
                true => Ok(()),
                false => forget_shutdown(socket).map_err(Into::into),
            };
            let listens = unshut.and_then(|()| SockRef::from(&socket).listen(backlog(config)));
            if let Err(error) = listens {
                tracing::error!(
                    address = listener.address, %error,
                    "a listener does not listen any more"
                );
            }
        }
    }

    /// Has the TCP sockets for clients listen no more: whoever connects is refused by the kernel,
    /// and a balancer takes another server. `revive` takes that back. A Unix socket cannot be
    /// revived (unix(7) has no word for it), so workers answer there that the server drains.
    pub fn shut_clients(&self) {
        for held in self.entries.values().flat_map(BTreeMap::values) {
            let is_unix = held.listener.entry.starts_with("unix:");
            if held.listener.purpose == Purpose::Clients && !is_unix {
                // One that is shut already says that it is not connected.
                let _ = SockRef::from(&held.socket).shutdown(std::net::Shutdown::Read);
            }
        }
    }

    /// The sockets of `slot` that no other slot shares: those that somebody has to take over when
    /// the slot has no worker.
    pub fn own_of_slot(&self, slot: Slot) -> (Vec<Listener>, Vec<BorrowedFd<'_>>) {
        let own = self.entries.values().filter(|held| shared(held).is_none());
        own.filter_map(|held| held.get(&slot.0))
            .map(|held| (held.listener.clone(), held.socket.as_fd()))
            .unzip()
    }

    /// The real addresses, as `status` shows them.
    pub fn addresses(&self, purpose: Purpose) -> Vec<String> {
        let firsts = self.entries.values().filter_map(|held| held.values().next());
        let wanted = firsts.filter(|held| held.listener.purpose == purpose);
        wanted.map(|held| held.listener.address.clone()).collect()
    }

    /// Every socket with its place, for an upgrade.
    pub fn all(&self) -> impl Iterator<Item = (u8, &Listener, BorrowedFd<'_>)> {
        let sockets = self.entries.values().flatten();
        sockets.map(|(slot, held)| (*slot, &held.listener, held.socket.as_fd()))
    }

    /// Takes over a socket from the image before this one.
    pub fn adopt(&mut self, slot: u8, listener: Listener, socket: OwnedFd) {
        let entry = (listener.purpose, listener.entry.clone());
        self.entries.entry(entry).or_default().insert(slot, Held::new(listener, socket));
    }

    /// Removes the `unix:` paths, when the server has ended.
    pub fn unlink_paths(&self, config: &Config) {
        for (_, path) in self.entries.keys() {
            unlink(path, config);
        }
    }
}

fn shared(held: &BTreeMap<u8, Held>) -> Option<&Held> {
    let is_shared = |listener: &Listener| {
        listener.purpose == Purpose::Api || listener.entry.starts_with("unix:")
    };
    held.get(&0).filter(|held| is_shared(&held.listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &[&str], worker_num: usize) -> Config {
        let listen = listen.iter().map(|text| text.parse().unwrap()).collect();
        Config { listen, worker_num, ..Config::default() }
    }

    #[test]
    fn every_slot_has_its_own_socket_on_the_port_that_slot_0_was_given() {
        let mut listeners = Listeners::default();
        let config = config(&["127.0.0.1:0", "[::1]:0"], 3);
        assert_eq!(listeners.ensure(&config).unwrap().len(), 6);
        assert_eq!(listeners.addresses(Purpose::Clients).len(), 2);
        let (first, _) = listeners.of_slot(Slot(0), &config);
        let (last, sockets) = listeners.of_slot(Slot(2), &config);
        assert_eq!((first, sockets.len()), (last, 2));
        assert_eq!(listeners.ensure(&config).unwrap(), []);
    }

    #[test]
    fn a_socket_that_listens_again_has_the_port_that_the_kernel_chose() {
        let mut listeners = Listeners::default();
        let config = config(&["127.0.0.1:0"], 2);
        listeners.ensure(&config).unwrap();
        let ports = |listeners: &Listeners| -> Vec<String> {
            let sockets =
                listeners.all().map(|(_, _, socket)| SockRef::from(&socket).local_addr());
            sockets.map(|addr| addr.unwrap().as_socket().unwrap().to_string()).collect()
        };
        let before = ports(&listeners);
        listeners.shut_clients();
        listeners.revive(Slot(0), &config);
        listeners.revive(Slot(1), &config);
        assert_eq!(ports(&listeners), before);
    }

    #[test]
    fn a_taken_port_is_an_error_that_leaves_nothing_behind() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let mut listeners = Listeners::default();
        let error = listeners.ensure(&config(&["127.0.0.1:0", &addr], 2)).unwrap_err().to_string();
        assert!(error.contains("something else listens there"), "{error}");
        let mut of_api = config(&["127.0.0.1:0"], 2);
        of_api.api.listen = vec![addr.parse().unwrap()];
        let error = listeners.ensure(&of_api).unwrap_err().to_string();
        assert!(error.contains("`api.listen` chooses another"), "{error}");
        assert_eq!(listeners.addresses(Purpose::Clients), Vec::<String>::new());
    }

    #[test]
    fn all_slots_share_a_socket_of_the_api() {
        let mut config = config(&["127.0.0.1:0"], 3);
        config.api.listen = vec!["127.0.0.1:0".parse().unwrap()];
        let mut listeners = Listeners::default();
        assert_eq!(listeners.ensure(&config).unwrap().len(), 4);
        let (last, _) = listeners.of_slot(Slot(2), &config);
        assert_eq!(last.len(), 2);
        assert_eq!(listeners.own_of_slot(Slot(0)).0.len(), 1);
        assert_eq!(listeners.addresses(Purpose::Api), [last[1].address.clone()]);
        config.api.listen.clear();
        listeners.retain(&config);
        assert_eq!(listeners.addresses(Purpose::Api), Vec::<String>::new());
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let config = config(&[&format!("unix:{}", path.display())], 4);
        let mut listeners = Listeners::default();
        assert_eq!(listeners.ensure(&config).unwrap().len(), 1);
        assert_eq!(listeners.of_slot(Slot(3), &config).1.len(), 1);
        assert_eq!(listeners.own_of_slot(Slot(0)).1.len(), 0);
        let error = Listeners::default().ensure(&config).unwrap_err().to_string();
        assert!(error.contains("another server listens there; end that server"), "{error}");
    }

    #[test]
    fn a_socket_that_was_removed_is_made_anew_and_a_new_mode_is_taken() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        let mut config = config(&["127.0.0.1:0"], 1);
        config.api.listen = vec![format!("unix:{}", path.display()).parse().unwrap()];
        let mut listeners = Listeners::default();
        listeners.ensure(&config).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(listeners.ensure(&config).unwrap().len(), 1);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        config.api.socket_mode = crate::config::Mode(0o640);
        assert_eq!(listeners.ensure(&config).unwrap(), []);
        listeners.retain(&config);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}
