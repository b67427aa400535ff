//! Requests, responses, cookies, forms and frames: each as it is in Swoole, or as PHP has it.

use bytes::Bytes;
use wsd::handler::app::AppSettings;

use crate::harness::until;
use crate::support::*;

async fn start(env: &[(&str, &str)]) -> Worker {
    start_script("swoole_http", env).await
}

async fn start_script(name: &str, env: &[(&str, &str)]) -> Worker {
    let prepend = format!("auto_prepend_file={}", path("clients/php/autoload.php"));
    let script = path(&format!("tests/app/fixtures/{name}.php"));
    let php = ["php", "-n", "-d", &prepend, &script];
    Worker::start_with(&php, env, AppSettings::default()).await
}

async fn get(worker: &Worker, target: &str, fields: &[(&str, &str)]) -> http::Response<Bytes> {
    let mut request = http::Request::get(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    worker.http(request.body(Bytes::new()).unwrap()).await.unwrap()
}

async fn post(worker: &Worker, target: &str, kind: &str, body: &[u8]) -> String {
    let request = http::Request::post(target).header("content-type", kind);
    text(&worker.http(request.body(Bytes::copy_from_slice(body)).unwrap()).await.unwrap())
}

fn text(response: &http::Response<Bytes>) -> String {
    String::from_utf8(response.body().to_vec()).unwrap()
}

#[test]
fn a_script_without_pages_leaves_them_to_the_server_also_where_it_hears_of_ends() {
    on_worker(async {
        let worker = start_script("scripts/ends", &[]).await;
        let request = http::Request::get("/").body(Bytes::new()).unwrap();
        assert!(worker.http(request).await.is_none());
    });
}

#[test]
fn a_request_shows_what_swoole_shows() {
    on_worker(async {
        let worker = start(&[]).await;
        let fields = [
            ("cookie", "a=1+2; flag; b=%41%2B; a=9; d[x]=1; d[y]=2; e.f=3; =no"),
            ("cookie", "q=x=y"),
            ("x-many", "one"),
            ("x-many", "two"),
        ];
        let seen = text(&get(&worker, "/seen?a=b+c&d[]=1", &fields).await);
        let cookies =
            r#"{"a":"1+2","flag":"","b":"A+","d":{"x":"1","y":"2"},"e_f":"3","q":"x=y"}"#;
        let public =
            r#"["fd","streamId","header","server","cookie","get","files","post","tmpfiles"]"#;
        let rest =
            r#"{"a":"b c","d":["1"]},["one","two"],false,"a=b+c&d[]=1","HTTP/1.1","GET",true"#;
        assert_eq!(seen, format!("[{cookies},{rest},{public}]"));
        let parsed = text(&get(&worker, "/parse", &[]).await);
        assert_eq!(
            parsed,
            [
                r#"[false,38,"PUT",31,false,2,true,false,"/a b",{"c":"d"},"#,
                r#"{"host":"x","cookie":"e=f","content-length":"3"},null,"a=b",71,0]"#,
            ]
            .concat()
        );
    });
}

#[test]
fn cookies_are_written_as_swoole_writes_them() {
    on_worker(async {
        let worker = start(&[]).await;
        let response = get(&worker, "/cookies", &[]).await;
        let lines = response.headers().get_all("set-cookie").iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().unwrap()).collect();
        let deleted = "deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0";
        assert_eq!(
            lines[..4],
            [
                "plain=a+b%3Bc",
                "path=x; path=/p; domain=example.com; secure; HttpOnly; SameSite=Lax; \
                 Priority=High; Partitioned",
                &format!("gone={deleted}"),
                "raw=a+b%20",
            ]
        );
        let expires = lines[4].replace("Max-Age=99", "Max-Age=100");
        assert!(expires.starts_with("expires=v; expires="), "{expires}");
        assert!(expires.ends_with(" GMT; Max-Age=100; HttpOnly"), "{expires}");
        assert_eq!(lines[5..], ["object=a+b; path=/o"]);
        let said = text(&response);
        assert!(
            said.starts_with(
                r#"[false,"Swoole\\Http\\Response::cookie(): The value cannot contain"#
            )
        );
        assert!(said.ends_with(",6,false]"), "{said}");
    });
}

#[test]
fn fields_of_a_response_are_swooles() {
    on_worker(async {
        let worker = start(&[]).await;
        let response = get(&worker, "/fields", &[]).await;
        assert_eq!(response.status(), 202);
        let list: Vec<_> = response.headers().get_all("x-list").iter().collect();
        assert_eq!(list, ["a", "b", "5"]);
        assert_eq!(response.headers()["x-own"], "second");
        assert!(
            !response.headers().contains_key("x-split"),
            "a value with a line break is left out"
        );
        assert!(!response.headers().contains_key("set-cookie"));
        let list = r#"[false,{"X-List":["a","b \n",null,5],"#;
        let shown = format!(r#"{list}"X-Split":"a\r\nset-cookie: b=c","x-own":"second"}}]"#);
        assert_eq!(text(&response), shown);
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told");
        let response = get(&worker, &format!("/twice?to={}", told.display()), &[]).await;
        assert_eq!(text(&response), "once", "an end after the end changes nothing");
        // What the handler does after the end comes after the answer.
        let told = until("what it told", async || {
            std::fs::read_to_string(&told).ok().filter(|told| told.ends_with(']'))
        });
        let told = told.await;
        assert!(
            told.starts_with(r#"[false,false,"Swoole\\Http\\Response::end(): http response is"#),
            "{told}"
        );
        assert!(told.ends_with(",7106]"), "{told}");
    });
}

#[test]
fn what_swoole_refuses_is_refused_with_its_words() {
    on_worker(async {
        let worker = start(&[]).await;
        let response = get(&worker, "/oddities", &[("accept", "a"), ("accept", "b")]).await;
        assert_eq!(response.headers()["x-empty"], "");
        assert!(!response.headers().contains_key("content-type"), "it was set to nothing");
        let said = [
            r#"[false,false,false,"Swoole\\Http\\Response::cookie(): The first argument must be"#,
            r#" a string or a Http\\Cookie object","#,
            r#"[false,"Swoole\\Http\\Response::write(): the data sent must not be empty",550],"#,
            r#"[false,"Swoole\\Http\\Response::sendfile(): can't use sendfile when HTTP chunk"#,
            r#" is enabled"],"Swoole\\Http\\Response::trailer() does not exist under wsd: see"#,
            r#" docs/swoole.md",[],"b"]"#,
        ];
        assert_eq!(text(&response), said.concat());
    });
}

#[test]
fn a_response_that_closes_breaks_off() {
    on_worker(async {
        let worker = start(&[]).await;
        let request = http::Request::get("/close").body(Bytes::new()).unwrap();
        let mut body = worker.answer(request).await.unwrap().into_body();
        assert_eq!(wait("a part", body.part()).await, Some(Ok("half".into())));
        assert!(wait("the end", body.part()).await.unwrap().is_err());
    });
}

#[test]
fn a_part_of_a_file_is_sent_or_refused_with_the_reason() {
    on_worker(async {
        let worker = start(&[]).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.css");
        std::fs::write(&file, "0123456789").unwrap();
        let file = file.display().to_string();
        let ask = async |file: &str, range: &str| {
            text(&get(&worker, &format!("/sendfile?file={file}&{range}"), &[]).await)
        };
        assert_eq!(ask(&file, "offset=0&length=0").await, "0123456789");
        assert_eq!(ask(&file, "offset=2&length=3").await, "234");
        assert_eq!(ask(&file, "offset=10&length=0").await, "");
        for (file, range, why) in [
            (&*file, "offset=-1&length=0", "$offset[-1] must be greater than or equal to 0"),
            (&*file, "offset=0&length=-1", "$length[-1] must be greater than or equal to 0"),
            (&*file, "offset=11&length=0", "$offset[11] exceeds the file size"),
            (&*file, "offset=9&length=2", "$length[2] exceeds the file size"),
            ("/", "offset=0&length=0", "$file[/] given is not a regular file"),
            ("/dev/null", "offset=0&length=0", "$file[/dev/null] given is not a regular file"),
            ("/none", "offset=0&length=0", "stat(/none) failed"),
            ("", "offset=0&length=0", "file name is empty"),
        ] {
            let said = ask(file, range).await;
            assert!(said.contains(why), "{file} {range}: {said}");
        }
        let named = format!("/sendfile?file={file}&offset=0&length=0");
        assert_eq!(get(&worker, &named, &[]).await.headers()["content-type"], "text/css");
    });
}

const FORM: &str = "Content-Disposition: form-data; ";
const PLAIN: &str = "multipart/form-data; boundary=xx";

/// A form of one part.
fn file(parameters: &str, data: &str) -> String {
    format!("--xx\r\n{FORM}{parameters}\r\n\r\n{data}\r\n--xx--\r\n")
}

/// A form as some client writes it: what is special, Content-Type, body, and what PHP makes of it.
type Form = (&'static str, &'static str, String, &'static str);

fn forms() -> Vec<Form> {
    vec![
        (
            "unquoted names, as .NET writes them",
            PLAIN,
            file("name=f; filename=a.txt; filename*=utf-8''a.txt", "data"),
            r#"[null,{"f":["a.txt","",0,4,"data"]},true]"#,
        ),
        (
            "line feeds alone",
            PLAIN,
            format!("--xx\n{FORM}name=\"t\"\n\none\r\ntwo\n--xx\n{FORM}name=u\n\n\n--xx--"),
            r#"[{"t":"one\r\ntwo","u":""},[],true]"#,
        ),
        (
            "the path of a Windows client",
            PLAIN,
            file(r#"name="f"; filename="C:\dir\a b.txt""#, "x"),
            r#"[null,{"f":["a b.txt","",0,1,"x"]},true]"#,
        ),
        (
            "quotes in names",
            PLAIN,
            file(r#"name="a\"b"; filename='it''s'"#, "x"),
            r#"[null,{"a\"b":["it","",0,1,"x"]},true]"#,
        ),
        (
            "a boundary in quotes, with what else a parameter may have",
            r#"Multipart/Form-Data; charset=utf-8; BOUNDARY="x x;,y"; more=1"#,
            format!("preamble\r\n--x x;,y\r\n{FORM}name=t\r\n\r\nv\r\n--x x;,y--\r\nepilogue"),
            r#"[{"t":"v"},[],true]"#,
        ),
        (
            "nested fields, folded heads, a type with a parameter",
            PLAIN,
            [
                format!("--xx\r\n{FORM}name=\"a[b][]\"\r\n\r\n1\r\n"),
                format!("--xx\r\n{FORM}name=\"a[b][]\"\r\n\r\n2\r\n"),
                "--xx\r\ncontent-type: text/plain; charset=utf-8\r\n".to_owned(),
                "CONTENT-DISPOSITION: form-data;\r\n\tname=\"f[x][]\"; ".to_owned(),
                "filename=\"n\"\r\n\r\n\r\n".to_owned(),
                format!("--xx\r\n{FORM}name=\"f[x][]\"; filename=\"\"\r\n\r\n\r\n--xx--"),
            ]
            .concat(),
            concat!(
                r#"[{"a":{"b":["1","2"]}},"#,
                r#"{"f":{"x":[["n","text/plain",0,0,""],["","",4,0,""]]}},true]"#
            ),
        ),
    ]
}

/// What ends too early, or says what no form may.
fn spoilt_forms() -> Vec<Form> {
    vec![
        (
            "an upload that its end cuts off",
            PLAIN,
            format!("--xx\r\n{FORM}name=f; filename=a\r\n\r\ncut"),
            r#"[null,{"f":["a","",3,0,""]},true]"#,
        ),
        (
            "a field that its end cuts off",
            PLAIN,
            format!("--xx\r\n{FORM}name=t\r\n\r\nv\r\n"),
            r#"[{"t":"v"},[],true]"#,
        ),
        (
            "more than MAX_FILE_SIZE, names that name no place, and none",
            PLAIN,
            [
                format!("--xx\r\n{FORM}name=MAX_FILE_SIZE\r\n\r\n1\r\n"),
                format!("--xx\r\n{FORM}name=f; filename=a\r\n\r\nxx\r\n"),
                format!("--xx\r\n{FORM}name=\"a[b\"; filename=a\r\n\r\nx\r\n"),
                format!("--xx\r\n{FORM}name=\"\"; filename=a\r\n\r\nx\r\n"),
                format!("--xx\r\n{FORM}filename=a\r\n\r\nx\r\n--xx--"),
            ]
            .concat(),
            r#"[{"MAX_FILE_SIZE":"1"},{"f":["a","",2,0,""],"0":["a","",0,1,"x"]},true]"#,
        ),
        (
            "no boundary, no parts, no name",
            PLAIN,
            format!("--xx\r\n{FORM}\r\n\r\nlost\r\n--xx--"),
            "[null,[],true]",
        ),
    ]
}

#[test]
fn uploads_are_read_as_php_reads_them() {
    on_worker(async {
        let worker = start(&[]).await;
        for (what, kind, body, seen) in forms().into_iter().chain(spoilt_forms()) {
            assert_eq!(post(&worker, "/files", kind, body.as_bytes()).await, seen, "{what}");
            let left = text(&get(&worker, "/left", &[]).await);
            assert!(left.ends_with(",[]]"), "{what}: temporary files are left: {left}");
        }
        let worker = start(&[("PARSE_FILES", "1")]).await;
        let nested = file("name=\"f[a][b]\"; filename=n", "x");
        let keys = r#"[null,{"f":["name","type","tmp_name","error","size"]},true]"#;
        assert_eq!(post(&worker, "/files", PLAIN, nested.as_bytes()).await, keys);
    });
}

#[test]
fn of_more_uploads_than_php_takes_the_first_are_read() {
    on_worker(async {
        let worker = start(&[]).await;
        let part = |n: usize| format!("--xx\r\n{FORM}name=f{n}; filename=a\r\n\r\nx\r\n");
        let parts: String = (0..25).map(part).collect();
        let body = format!("{parts}--xx\r\n{FORM}name=t\r\n\r\nv\r\n--xx--");
        let seen = post(&worker, "/files", PLAIN, body.as_bytes()).await;
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen[0]["t"], "v");
        assert_eq!(seen[1].as_object().unwrap().len(), 20, "max_file_uploads");
    });
}

#[test]
fn what_is_pushed_and_packed_is_swooles() {
    on_worker(async {
        let worker = start(&[]).await;
        let fd = worker.open("/").await;
        let says = r"Swoole\\WebSocket\\Frame::pack(): ";
        let unpack = r"Swoole\\WebSocket\\Frame::unpack(): ";
        for (word, answer) in [
            ("kind", "[true,1,1,null]".to_owned()),
            ("int", "42".to_owned()),
            ("null", String::new()),
            ("text", "said".to_owned()),
            ("fragments", "abcd".to_owned()),
            ("packed", r#"["01026162","88040fa1736f","890178",null]"#.to_owned()),
            (
                "long",
                format!(
                    r#"["","","{says}websocket control frame payload must not exceed 125 bytes"]"#
                ),
            ),
            ("reason", format!(r#"["","{says}the max length of close reason is 123"]"#)),
            (
                "opcode",
                r#"[false,"Swoole\\WebSocket\\Server::push(): the opcode [3] is invalid"]"#
                    .to_owned(),
            ),
            ("unpacked", r#"["so",false,null]"#.to_owned()),
            ("inflated", format!(r#"[true,7,false,508,1000,"{unpack}inflate() failed"]"#)),
            ("squeezed", "[true,64,null]".to_owned()),
            ("close", "close 4001 so".to_owned()),
        ] {
            assert_eq!(worker.ask(fd, word).await, answer, "{word}");
        }
    });
}
