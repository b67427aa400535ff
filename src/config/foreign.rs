//! Names that other servers have for what a key of ours does, or what is said of what no key of
//! ours does.

/// The names, in lower case and without `_` and `-`, and the remedy that is told of each.
const FOREIGN: &[(&[&str], &str)] = &[
    (
        &[
            "port",
            "ports",
            "host",
            "hostname",
            "bind",
            "address",
            "addr",
            "ip",
            "interface",
            "listenaddress",
            "listenport",
            "listenhost",
            "httplisten",
            "socket",
            "unixsocket",
        ],
        "write listen = \"127.0.0.1:8000\" or the like",
    ),
    (
        &[
            "workers",
            "worker",
            "workerprocesses",
            "workercount",
            "numworkers",
            "reactornum",
            "threads",
            "concurrency",
        ],
        "write worker_num = 4, or app.processes for the processes of an application",
    ),
    (
        &["cluster", "redis", "valkey", "redisurl", "redishost", "broker", "adapter"],
        "write engine = \"redis://host:6379\" in [cluster] for several hosts, or worker_num = 4 \
         for several workers",
    ),
    (
        &[
            "tls",
            "ssl",
            "tlscert",
            "tlskey",
            "tlscertificate",
            "sslcert",
            "sslkey",
            "sslcertfile",
            "sslkeyfile",
            "sslcertificate",
            "sslcertificatekey",
            "cert",
            "certfile",
            "certificate",
            "key",
            "keyfile",
            "privatekey",
        ],
        "the server speaks no TLS; let a proxy do so, as etc/nginx shows",
    ),
    (
        &[
            "maxclients",
            "maxconn",
            "maxconnections",
            "workerconnections",
            "connectionsmax",
            "connectionlimit",
            "limit",
        ],
        "write max_connection",
    ),
    (
        &[
            "maxpayload",
            "maxpayloadlength",
            "maxmessagesize",
            "messagesizelimit",
            "maxsize",
            "maxbody",
            "maxrequestsize",
            "clientmaxbodysize",
            "bodylimit",
            "wsmaxsize",
        ],
        "write package_max_length",
    ),
    (
        &["maxbackpressure", "sendbuffer", "writebuffersize", "socketbuffersize", "maxqueue"],
        "write buffer_output_size",
    ),
    (
        &["keepalive", "keepalivetimeout", "timeoutkeepalive", "keepaliverequests"],
        "write http_keepalive_timeout for plain HTTP, or ping_interval for WebSockets",
    ),
    (&["timeout", "idletimeout", "readtimeout"], "write heartbeat_idle_time"),
    (&["heartbeat", "heartbeatinterval", "pinginterval", "wspinginterval"], "write ping_interval"),
    (&["pingtimeout", "wspingtimeout", "heartbeattimeout"], "write pong_timeout"),
    (&["compression", "permessagedeflate", "deflate", "gzip"], "write websocket_compression"),
    (
        &["origin", "origins", "cors", "corsorigin", "alloworigin", "allowedorigin"],
        "write allowed_origins",
    ),
    (&["servername", "domain", "domains", "virtualhost"], "write allowed_hosts"),
    (
        &["proxyheaders", "trustproxy", "forwardedallowips", "realipfrom", "setrealipfrom"],
        "write trusted_proxies",
    ),
    (&["log", "logfile", "logpath", "errorlog", "accesslog", "syslog"], "write log_file"),
    (&["loglevel", "verbose", "verbosity", "debug"], "write log_level"),
    (&["pid", "pidfile", "pidpath"], "write pid_file"),
    (&["daemon", "background", "detach"], "write daemonize, or start with -d"),
    (&["uid", "username", "runas"], "write user"),
    (&["gid", "groupname"], "write group"),
    (&["taskworkernum", "taskworkers", "queueworkers"], "write task_processes in [app]"),
    (&["maxrequest", "maxrequests", "limitmaxrequests"], "write max_requests in [app]"),
    (
        &["script", "entry", "entrypoint", "exec", "program", "cmd", "command", "application"],
        "write [app] command = \"php server.php\" or the like",
    ),
    (&["chdir", "cwd", "directory", "root", "documentroot"], "write cwd in [app]"),
    (&["env", "environment"], "write a table [app.env]"),
    (&["reload", "watch", "autoreload"], "`wsd reload` loads new code; nothing watches files"),
    (&["gracefultimeout", "shutdowntimeout", "stoptimeout", "maxwait"], "write max_wait_time"),
];

/// The remedy for a key that other servers have, whatever table it stands in.
pub(super) fn remedy(name: &str) -> Option<&'static str> {
    let name = name.rsplit('.').next().unwrap_or(name);
    let plain: String = name.chars().filter(|c| !matches!(c, '_' | '-')).collect();
    let plain = plain.to_ascii_lowercase();
    FOREIGN.iter().find(|(names, _)| names.contains(&plain.as_str())).map(|(_, right)| *right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn each_name_stands_once_and_each_remedy_names_a_key_that_there_is() {
        let mut all: Vec<&str> =
            FOREIGN.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count, "a name stands twice");
        let keys: Vec<&str> = keys().flat_map(|key| key.name.split('.')).collect();
        for (_, right) in FOREIGN.iter().filter(|(_, right)| right.starts_with("write ")) {
            let named = |word: &str| keys.contains(&word.trim_matches(['[', ']', ',']));
            assert!(right.split([' ', '.', '[', ']']).any(named), "{right}");
        }
    }

    #[test]
    fn a_name_is_known_however_it_is_spelt() {
        for name in ["tls_cert", "tls-cert", "TLSCert", "app.tls_cert"] {
            assert!(remedy(name).unwrap().contains("no TLS"), "{name}");
        }
        assert_eq!(remedy("nonsense"), None);
    }
}
