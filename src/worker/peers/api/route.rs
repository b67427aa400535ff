//! Which request is what: every path of the API with its methods, and the scope that each needs.
//! `openapi.json` describes the same, which a test holds to this.

use http::Method;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::answer::Fault;
use crate::config::Scope;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Whether somebody is there.
    Live,
    /// Whether balancers are to send clients here.
    Ready,
    /// The figures of all processes, for Prometheus.
    Metrics,
    /// The description of this API.
    OpenApi,
    /// A page of the open connections.
    Connections,
    /// What is known of a connection.
    Info,
    /// A message to a client.
    Push,
    /// The end of a connection.
    Close,
    /// Messages to many clients.
    Batch,
    /// A message to every client.
    Broadcast,
    /// A message to the members of rooms.
    Publish,
    /// The connections of a user.
    UserInfo,
    /// A message to a user.
    UserPush,
    /// The end of a user's connections.
    UserClose,
    /// A page of the rooms.
    Rooms,
    /// A page of the members of a room.
    Members,
}

/// A path and method.
pub(super) struct Endpoint {
    pub method: Method,
    /// The path, in which `{x}` is any one segment.
    pub path: &'static str,
    pub name: Name,
    /// What a token has to allow; `None`: whoever can connect may ask.
    pub scope: Option<Scope>,
    /// Whether the request has a body that says more.
    pub takes_body: bool,
}

impl Endpoint {
    /// What it may be asked by: a GET is a HEAD as well.
    fn methods(&self) -> impl Iterator<Item = Method> + use<> {
        let is_head_too = self.method == Method::GET;
        [Some(self.method.clone()), is_head_too.then_some(Method::HEAD)].into_iter().flatten()
    }
}

const READ: Option<Scope> = Some(Scope::Read);
const PUSH: Option<Scope> = Some(Scope::Push);

const fn get(path: &'static str, name: Name, scope: Option<Scope>) -> Endpoint {
    Endpoint { method: Method::GET, path, name, scope, takes_body: false }
}

const fn post(path: &'static str, name: Name) -> Endpoint {
    Endpoint { method: Method::POST, path, name, scope: PUSH, takes_body: true }
}

const fn delete(path: &'static str, name: Name) -> Endpoint {
    Endpoint { method: Method::DELETE, path, name, scope: PUSH, takes_body: false }
}

/// Every endpoint there is. A GET is a HEAD as well.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    get("/live", Name::Live, None),
    get("/ready", Name::Ready, None),
    get("/metrics", Name::Metrics, READ),
    get("/v1/openapi.json", Name::OpenApi, READ),
    get("/v1/connections", Name::Connections, READ),
    get("/v1/connections/{fd}", Name::Info, READ),
    post("/v1/connections/{fd}", Name::Push),
    delete("/v1/connections/{fd}", Name::Close),
    post("/v1/push", Name::Batch),
    post("/v1/broadcast", Name::Broadcast),
    post("/v1/publish", Name::Publish),
    get("/v1/uids/{uid}", Name::UserInfo, READ),
    post("/v1/uids/{uid}", Name::UserPush),
    delete("/v1/uids/{uid}", Name::UserClose),
    get("/v1/rooms", Name::Rooms, READ),
    get("/v1/rooms/{room}/members", Name::Members, READ),
];

/// What a request asks.
pub(super) struct Route {
    pub endpoint: &'static Endpoint,
    /// What stands in the place of `{x}`, decoded.
    pub segment: String,
}

impl Route {
    /// Finds what a request asks.
    ///
    /// # Errors
    /// Where there is no such path, or none of that method.
    pub fn of(request: &Parts) -> Result<Route, Fault> {
        let here = ENDPOINTS
            .iter()
            .filter_map(|endpoint| Some((endpoint, matches(endpoint.path, request.uri.path())?)));
        let here: Vec<_> = here.collect();
        let method = match request.method {
            Method::HEAD => Method::GET,
            ref other => other.clone(),
        };
        match here.iter().find(|(endpoint, _)| endpoint.method == method) {
            Some((endpoint, segment)) => {
                let segment = percent_decode_str(segment).decode_utf8();
                let segment = segment.map_err(|_| Fault::bad("the path is not UTF-8"))?;
                Ok(Route { endpoint, segment: segment.into_owned() })
            }
            None if here.is_empty() => Err(Fault::NotFound),
            None => Err(Fault::Method(here.iter().flat_map(|(it, _)| it.methods()).collect())),
        }
    }
}

/// What stands at `{x}` of a template, if a path is one of it.
fn matches<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, rest)) = template.split_once('{') else {
        return (template == path).then_some("");
    };
    let behind = rest.split_once('}').map_or("", |(_, behind)| behind);
    let segment = path.strip_prefix(before)?.strip_suffix(behind)?;
    (!segment.is_empty() && !segment.contains('/')).then_some(segment)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::Info;
    use crate::api::rooms::{EngineWord, Nodes, Tally};
    use crate::fd::{Fd, Slot};

    fn find(method: &str, path: &str) -> Result<(Name, String), Fault> {
        let request = http::Request::builder().method(method).uri(path).body(()).unwrap();
        Route::of(&request.into_parts().0).map(|route| (route.endpoint.name, route.segment))
    }

    #[test]
    fn a_path_and_method_are_one_way_or_none() {
        let found = |name, segment: &str| Ok((name, segment.to_owned()));
        assert_eq!(find("HEAD", "/metrics?x=y"), found(Name::Metrics, ""));
        assert_eq!(find("GET", "/v1/connections"), found(Name::Connections, ""));
        assert_eq!(find("DELETE", "/v1/connections/12"), found(Name::Close, "12"));
        assert_eq!(find("GET", "/v1/connections/a%2Fb"), found(Name::Info, "a/b"));
        assert_eq!(find("GET", "/v1/rooms/a%2Fb/members"), found(Name::Members, "a/b"));
        assert_eq!(find("GET", "/v1/rooms/a+%C3%A9/members"), found(Name::Members, "a+\u{e9}"));
        assert_eq!(find("GET", "/v1/rooms/%2525/members"), found(Name::Members, "%25"));
        assert_eq!(find("GET", "/v1/rooms/a/b/members"), Err(Fault::NotFound));
        assert_eq!(find("GET", "/v1/rooms//members"), Err(Fault::NotFound));
        assert_eq!(find("GET", "/v1/connections/"), Err(Fault::NotFound));
        assert_eq!(find("GET", "/v1/connections/1/2"), Err(Fault::NotFound));
        assert!(matches!(find("GET", "/v1/connections/%ff"), Err(Fault::Bad(_))));
        assert_eq!(find("PUT", "/v1/push"), Err(Fault::Method(vec![Method::POST])));
        let read = vec![Method::GET, Method::HEAD];
        assert_eq!(find("PUT", "/v1/rooms"), Err(Fault::Method(read)));
        assert_eq!(find("GET", "/v1/push/"), Err(Fault::NotFound));
    }

    #[test]
    fn the_description_has_every_way_with_its_scope_and_no_other() {
        let description: Value = serde_json::from_str(super::super::OPEN_API).unwrap();
        let mut described = Vec::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap().iter();
            // A path may have parameters that all of its methods share.
            for (method, operation) in methods.filter(|(method, _)| *method != "parameters") {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                described.push((path.clone(), method.to_uppercase(), text(&operation["x-scope"])));
                let takes_body = operation.get("requestBody").is_some();
                let endpoint = ENDPOINTS
                    .iter()
                    .find(|w| w.path == path && w.method.as_str() == method.to_uppercase());
                assert_eq!(
                    endpoint.map(|endpoint| endpoint.takes_body),
                    Some(takes_body),
                    "{method} {path}"
                );
            }
        }
        let mut endpoints: Vec<_> = ENDPOINTS
            .iter()
            .map(|endpoint| {
                let scope = endpoint.scope.map_or("none", Scope::as_str);
                (endpoint.path.to_owned(), endpoint.method.to_string(), scope.to_owned())
            })
            .collect();
        described.sort();
        endpoints.sort();
        assert_eq!(described, endpoints);
    }

    #[test]
    fn the_description_has_each_field_of_a_client_and_of_a_tally() {
        let description: Value = serde_json::from_str(super::super::OPEN_API).unwrap();
        let schemas = &description["components"]["schemas"];
        let fields = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let listed = fields(&schemas["Listed"]["properties"]);
        let more = fields(&schemas["Info"]["allOf"][1]["properties"]);
        let info = json!(Info::new(Fd::try_from(1_u64).unwrap(), Slot(0)));
        assert_eq!(&listed | &more, fields(&info));
        let (nodes, engine) = (Some(Nodes::default()), Some(EngineWord::Ok));
        let tally = json!(Tally { nodes, engine, ..Tally::default() });
        assert_eq!(fields(&schemas["Tally"]["properties"]), fields(&tally));
    }
}
