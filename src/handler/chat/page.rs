//! The chat page: one file with its style and script inside, and nothing from elsewhere.

use std::sync::LazyLock;

use http::{HeaderValue, Method, StatusCode, header};

use crate::api::HttpResponse;

/// Where the client stands in the page.
const CLIENT_HERE: &str = "/* clients/js/wsd.global.js */";

/// The page, with the client of `clients/js` in a script of its own.
static HTML: LazyLock<String> = LazyLock::new(|| {
    let client = include_str!("../../../clients/js/wsd.global.js");
    include_str!("page.html").replace(CLIENT_HERE, client)
});

/// What the page may do: run its own scripts and style, known by their hashes, and connect back
/// to its own host. A text that slipped into the page as markup could do nothing.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-cQSN+kCCr6OHz5+XnGfamBNTWAO5g+2vVa8OPCTkCBU=' \
        'sha256-Eg/7fBvo96GgnP2nzak3LQLUeOiOeYy4+GlrXEdiOUk='; \
    style-src 'sha256-loOOBvu5VXNl9wvoW6oT7u4DDIRvzlXl59K/+Sos5pg='; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Answers a request for the page.
pub(super) fn answer(method: &Method) -> HttpResponse {
    if method != Method::GET && method != Method::HEAD {
        let mut response = HttpResponse::new("The page can only be read.\n".into());
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let mut response = HttpResponse::new(HTML.as_str().into());
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use sha2::Digest;

    use super::*;

    /// The hashes of what stands in each element of that name.
    fn hashes_of(tag: &str) -> String {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let bodies = HTML.split(&open).skip(1).filter_map(|rest| rest.split_once(&close));
        let hashes = bodies.map(|(body, _)| {
            let digest = sha2::Sha256::digest(body);
            format!("'sha256-{}'", BASE64.encode(&digest))
        });
        hashes.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_policy_knows_the_pages_own_scripts_and_style() {
        for (tag, directive) in [("script", "script-src"), ("style", "style-src")] {
            let want = format!("{directive} {};", hashes_of(tag));
            assert!(POLICY.contains(&want), "page.html was changed: put {want} into POLICY");
        }
    }

    #[test]
    fn the_page_names_no_other_host_and_never_writes_markup() {
        let urls = HTML.replace("http://www.w3.org/2000/svg", "");
        assert!(!urls.contains("://"), "the socket's address is made of the page's own");
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!HTML.contains(sink), "{sink}");
        }
    }

    #[test]
    fn only_reading_is_allowed() {
        let page = answer(&Method::GET);
        assert_eq!(page.status(), StatusCode::OK);
        assert!(page.headers().contains_key(header::CONTENT_SECURITY_POLICY));
        let refused = answer(&Method::POST);
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[header::ALLOW], "GET, HEAD");
    }
}
