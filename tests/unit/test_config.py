"""Settings: which value counts, where it came from, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kq.errors import ConfigError
from kq.values import given
from kq.values.configfile import read
from kq.values.given import load
from kq.values.setting import Queues

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in a repository."""
    (tmp_path / ".git").mkdir()
    return tmp_path


def write(folder: Path, text: str, name: str = "kq.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_any_setting_the_defaults_count(folder: Path) -> None:
    loaded = load(environ={}, folder=folder)
    assert loaded.config.url == "sqlite:///kq.db"
    assert loaded.config.lease.length == 15.0
    assert loaded.config.worker.queues == {}
    assert (loaded.file, loaded.origins) == (None, {})


def test_flag_counts_before_environment_before_file_before_default(folder: Path) -> None:
    write(folder, "url: redis://file\nlease: {length: 20s}\nworker:\n  grace: 1m\n  pool: thread\n")
    environ = {"KQ_URL": "redis://env", "KQ_LEASE_LENGTH": "25s"}
    loaded = load({"url": "redis://flag", "app": None}, environ=environ, folder=folder)
    assert loaded.config.url == "redis://flag"
    assert loaded.config.lease.length == 25.0
    assert (loaded.config.worker.grace, loaded.config.worker.pool) == (60.0, "thread")
    assert loaded.origins["url"] == "--url"
    assert loaded.origins["lease.length"] == "KQ_LEASE_LENGTH"
    assert loaded.origins["worker.grace"].endswith("kq.yaml:4")
    assert "results.keep" not in loaded.origins


def test_an_empty_variable_is_as_good_as_none(folder: Path) -> None:
    assert load(environ={"KQ_URL": ""}, folder=folder).config.url == "sqlite:///kq.db"


# Which file counts.


def test_a_file_in_a_folder_above_counts_up_to_the_root_of_the_repository(folder: Path) -> None:
    write(folder, "app: root:app")
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    assert load(environ={}, folder=below).config.app == "root:app"


def test_a_file_above_the_repository_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, "app: outside:app")
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    assert load(environ={}, folder=tmp_path / "repository").file is None


def test_outside_a_repository_only_the_folder_itself_counts(tmp_path: Path) -> None:
    write(tmp_path, "app: above:app")
    (tmp_path / "sub").mkdir()
    assert load(environ={}, folder=tmp_path / "sub").config.app is None
    assert load(environ={}, folder=tmp_path).config.app == "above:app"


def test_pyproject_counts_when_it_has_a_section_for_kq(folder: Path) -> None:
    write(folder, '[tool.kq]\nurl = "redis://toml"\n[tool.kq.worker]\nqueues = ["mail"]\n', "pyproject.toml")
    loaded = load(environ={}, folder=folder)
    assert (loaded.config.url, loaded.config.worker.queues) == ("redis://toml", {"mail": 0})
    write(folder, "url: redis://yaml")
    assert load(environ={}, folder=folder).config.url == "redis://yaml"


@pytest.mark.parametrize(("name", "text"), [("kq.yaml", "lease: {length: %ss}"), ("kq.toml", "lease.length = '%ss'")])
def test_a_file_is_understood_once_until_something_else_stands_in_it(folder: Path, name: str, text: str) -> None:
    file = write(folder, text % 20, name)
    assert read(file).tree is read(file).tree
    write(folder, text % 25, name)
    assert float(load(file=name, folder=folder, environ={}).config.lease.length) == 25


def test_a_named_file_counts_alone(folder: Path) -> None:
    write(folder, "app: near:app")
    named = write(folder, "url: redis://named", "etc/other.yaml")
    loaded = load(file=named, environ={}, folder=folder)
    assert (loaded.config.url, loaded.config.app) == ("redis://named", None)
    assert load(environ={"KQ_CONFIG": "etc/other.yaml"}, folder=folder).config.url == "redis://named"


def test_a_named_file_that_is_missing_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no config file 'no\.yaml'\nkq init"):
        load(file="no.yaml", environ={}, folder=folder)


@pytest.mark.parametrize("text", ["", "# nothing\n", "worker:\n", "url:\n"])
def test_a_file_without_settings_sets_nothing(folder: Path, text: str) -> None:
    write(folder, text)
    if text == "worker:\n":
        with pytest.raises(ConfigError, match="but it is a group"):
            load(environ={}, folder=folder)
    else:
        assert load(environ={}, folder=folder).origins == {}


# What values mean.


@pytest.mark.parametrize(
    "written",
    ["{images: 4, mail: }", "images:4,mail", "'images:4, mail'"],
)
def test_queues_may_be_written_in_several_ways(folder: Path, written: str) -> None:
    write(folder, f"worker:\n  queues: {written}\n")
    assert load(environ={}, folder=folder).config.worker.queues == Queues(images=4, mail=0)


def test_a_list_of_queues_sets_no_limits(folder: Path) -> None:
    write(folder, "worker:\n  queues: [images, mail]\n")
    assert load(environ={}, folder=folder).config.worker.queues == Queues(images=0, mail=0)


def test_sizes_and_durations_have_units(folder: Path) -> None:
    write(folder, "worker: {max_rss: 512MiB, grace: 1m30s}\nresults: {keep: 300}\n")
    loaded = load(environ={"KQ_SUBMIT_TIMEOUT": "2500ms", "KQ_WORKER_CONCURRENCY": "4"}, folder=folder).config
    assert (loaded.worker.max_rss, loaded.worker.grace, loaded.results.keep) == (512 * 2**20, 90.0, 300.0)
    assert (loaded.submit_timeout, loaded.worker.concurrency) == (2.5, 4)


def test_text_is_filled_from_the_environment(folder: Path) -> None:
    write(folder, "url: redis://:${PASSWORD}@${HOST:-localhost}/0\nworker: {queues: ['${QUEUE}']}\n")
    loaded = load(environ={"PASSWORD": "hush", "QUEUE": "mail"}, folder=folder).config
    assert (loaded.url, loaded.worker.queues) == ("redis://:hush@localhost/0", {"mail": 0})


@pytest.mark.parametrize("key", ["url", "state", "mail", "app"])
def test_a_variable_that_is_not_utf8_is_named_and_not_shown(folder: Path, key: str) -> None:
    write(folder, f"{key}: ${{ODD}}\n")
    with pytest.raises(ConfigError, match=rf"{key} in .*kq\.yaml:1 is not UTF-8") as told:
        load(environ={"ODD": "redis://:hush\udcff@h"}, folder=folder)
    assert "hush" not in str(told.value)
    with pytest.raises(ConfigError, match=rf"{key} in KQ_{key.upper()} is not UTF-8"):
        load(environ={f"KQ_{key.upper()}": "redis://:hush\udcff@h", "ODD": "memory://a"}, folder=folder)


def test_a_variable_that_is_not_set_is_named(folder: Path) -> None:
    write(folder, "\nurl: redis://:${PASSWORD}@h\n")
    with pytest.raises(ConfigError, match=r"url in .*kq\.yaml:2 needs the environment variable PASSWORD"):
        load(environ={}, folder=folder)


def test_a_secret_may_lie_in_a_file_of_its_own(folder: Path) -> None:
    write(folder, "url_file: secret/url\n")
    write(folder, "redis://:hush@h/0\n", "secret/url")
    loaded = load(environ={}, folder=folder)
    assert loaded.config.url == "redis://:hush@h/0"
    assert "secret/url" in loaded.origins["url"]
    write(folder, "redis://:other@h/0\n", "secret/other")
    assert load(environ={"KQ_URL_FILE": "secret/other"}, folder=folder).config.url == "redis://:other@h/0"


def test_a_secret_file_that_is_missing_or_said_twice_is_an_error(folder: Path) -> None:
    write(folder, "url_file: nowhere\n")
    with pytest.raises(ConfigError, match=r"url_file in .* can't be read"):
        load(environ={}, folder=folder)
    write(folder, "url_file: nowhere\nurl: redis://h\n")
    with pytest.raises(ConfigError, match="are both set"):
        load(environ={}, folder=folder)


def test_a_relative_sqlite_file_is_seen_from_the_config_file(folder: Path) -> None:
    write(folder, "url: sqlite:///kq.db\nstate: sqlite:///state/kq.db\n")
    (folder / "sub").mkdir()
    loaded = load(environ={}, folder=folder / "sub").config
    assert (loaded.url, loaded.state) == (f"sqlite:///{folder}/kq.db", f"sqlite:///{folder}/state/kq.db")


# What is refused.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wroker: {pool: thread}", r"wroker in .*kq.yaml:1 is no setting\nDid you mean worker\?"),
        ("\nworker: {\n  pol: thread}", r"worker.pol in .*kq.yaml:3 is no setting\nDid you mean worker.pool\?"),
        ("pool: thread", r"Did you mean worker.pool\?"),
        ("zzz: 1", r"zzz in .* is no setting\nThere are url, state, app"),
        ("1: x", "1 in .* is no setting"),
        ("lease: 15s", r"lease in .* is '15s', but it is a group\nIn it are lease.length"),
        ("lease: {length: 10ms}", "is 10ms, which is too short\nWrite 1.0s to 1d00h."),
        ("lease: {length: 1000d}", "is 1000d00h, which is too long\nWrite 1.0s to 1d00h."),
        ("submit_timeout: 0", "which is too short\nWrite 1ms to 1d00h."),
        ("submit_timeout: 1000000d", "which is too long\nWrite 1ms to 1d00h."),
        ("lease: {length: soon}", "lease.length in .*: 'soon' is no duration; write 30"),
        ("worker: {pool: proces}", r"worker.pool in .* is 'proces'\nWrite one of process, thread, async"),
        ("worker: {processes: 0}", "worker.processes in .*>= 1"),
        ("worker: {processes: '4'}", "worker.processes in .*Expected `int`"),
        ("worker: {max_rss: lots}", "'lots' is no size"),
        ("worker: {queues: []}", "names no queues"),
        ("worker: {queues: {mail: many}}", "names no queues"),
        ("worker: {queues: {mail: 0}}", "queue 'mail' has the limit 0; write 1 or more, or only its name"),
        ("worker: {queues: 'images:4,mail:-1'}", "queue 'mail' has the limit -1"),
        ("alerts: {mial: a@example.org}", r"alerts.mial in .* is no setting\nDid you mean alerts.mail\?"),
        ("alerts: {mail: ops}", "'ops' is no address; write ops@example.org"),
        ("alerts: {mail: []}", "is no address"),
        ("alerts: {sender: me}", "alerts.sender in .* is 'me', no address"),
        ("alerts: {webhook: 'ftp://h/x'}", "alerts.webhook in .* is no URL to post to"),
        ("alerts: {most_an_hour: 1}", "alerts.most_an_hour in .*>= 2"),
        ("alerts: {rules: ['oldst>5m']}", "'oldst>5m' is no condition: at character 1 'oldst' .*Did you mean 'oldest'"),
        ("alerts: {command: 'page \"me'}", "alerts.command in .* has a quote that does not end"),
        ("alerts: {command: ' '}", "alerts.command in .* names no program"),
        ("mail: http://h", "mail server 'http://h' is none"),
        (
            "mail: 'smtp://ann:hush@mx.example.org'",
            r"mail server 'smtp://ann:\*\*\*@mx.example.org' would get its password",
        ),
        ("url: [a]", "url in .*Expected `str`"),
        ("url: redis://h\nurl: redis://g", "url stands twice in .*, in lines 1 and 2"),
        ("worker: {pool: thread, pool: async}", "worker.pool stands twice"),
        ("- url", "holds no settings"),
        ("url: 'x", "is no YAML"),
        ("url: !!python/object:os.system x", "is no YAML"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_would_be_right(folder: Path, text: str, said: str) -> None:
    write(folder, text)
    with pytest.raises(ConfigError, match=said):
        load(environ={}, folder=folder)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("gone.yaml")], ids=["folder", "link"])
def test_what_has_the_name_of_a_config_file_and_is_none_is_not_passed_over(
    folder: Path, make: Callable[[Path], object]
) -> None:
    make(folder / "kq.yaml")
    with pytest.raises(ConfigError, match=r"kq.yaml can't be read: "):
        load(environ={}, folder=folder)


@pytest.mark.parametrize(
    "text",
    ["[tool]\nkq = {app = 'a:b'}", "[tool]\nkq.app = 'a:b'", "tool.kq.app = 'a:b'", "['tool'.'kq']\napp = 'a:b'"],
)
def test_settings_in_a_pyproject_are_found_however_they_are_written(folder: Path, text: str) -> None:
    write(folder, text, "pyproject.toml")
    assert load(environ={}, folder=folder).config.app == "a:b"


@pytest.mark.parametrize("text", ["[tool]\nkq = 3", "[tool]\nkq = 'sqlite:///kq.db'"])
def test_a_section_that_is_none_is_refused(folder: Path, text: str) -> None:
    write(folder, text, "pyproject.toml")
    with pytest.raises(ConfigError, match=r"pyproject.toml holds no settings"):
        load(environ={}, folder=folder)


@pytest.mark.parametrize("text", ["[project.scripts]\nkq = 'a:b'", "tool = 3", "[tool.x]\npackages = ['kq']"])
def test_a_pyproject_that_speaks_otherwise_of_kq_configures_nothing_unless_it_is_named(folder: Path, text: str) -> None:
    path = write(folder, text, "pyproject.toml")
    assert load(environ={}, folder=folder).file is None
    with pytest.raises(ConfigError, match=r"pyproject.toml has no \[tool.kq\]"):
        load(file=path, environ={}, folder=folder)


def test_toml_that_is_none_is_refused(folder: Path) -> None:
    write(folder, "[tool.kq\n", "pyproject.toml")
    with pytest.raises(ConfigError, match="is no TOML"):
        load(environ={}, folder=folder)


def test_a_file_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "kq.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't be read"):
        load(environ={}, folder=folder)


def test_a_wrong_value_in_the_environment_names_its_variable(folder: Path) -> None:
    with pytest.raises(ConfigError, match="worker.processes in KQ_WORKER_PROCESSES: Expected"):
        load(environ={"KQ_WORKER_PROCESSES": "many"}, folder=folder)


def test_a_misspelt_variable_is_noticed() -> None:
    assert given.misspelt({"KQ_ULR": "x", "KQ_WORKER_GRCE": "1", "KQ_URL": "y", "KQ_SOMETHING": "", "HOME": ""}) == {
        "KQ_ULR": "KQ_URL",
        "KQ_WORKER_GRCE": "KQ_WORKER_GRACE",
    }


def test_settings_are_shown_with_their_origin_and_without_secrets(folder: Path) -> None:
    loaded = load({"url": "redis://:hush@h/0"}, environ={"KQ_WORKER_QUEUES": "mail:1,default"}, folder=folder)
    rows = {key: (value, origin) for key, value, origin in loaded.rows()}
    assert rows["url"] == ("redis://:***@h/0", "--url")
    assert rows["worker.queues"] == ("mail: 1, default", "KQ_WORKER_QUEUES")
    assert rows["worker.grace"] == ("30s", "default")
    assert rows["worker.max_rss"] == ("-", "default")
    assert "hush" not in str(rows)


def test_who_is_told_and_how_often(folder: Path) -> None:
    write(folder, "alerts: {mail: [ops@example.org, Ann <ann@example.org>], at_most_every: 5m, webhook_file: hook}\n")
    write(folder, "https://hooks.example.org/T0/hush\n", "hook")
    loaded = load(environ={"KQ_ALERTS_COMMAND": "page me"}, folder=folder)
    alerts = loaded.config.alerts
    assert alerts.mail == ("ops@example.org", "Ann <ann@example.org>")
    assert (alerts.webhook, alerts.command) == ("https://hooks.example.org/T0/hush", "page me")
    assert (float(alerts.at_most_every), alerts.most_an_hour, alerts.wanted) == (300.0, 12, True)
    assert "hush" not in str(loaded.rows())
    assert not load(environ={"KQ_ALERTS_SENDER": "kq@example.org"}, folder=folder.parent).config.alerts.wanted


# The files that ship.


def test_the_configs_of_the_brokers_are_equal_but_for_the_url() -> None:
    texts = [(CONFIGS / f"{name}.yaml").read_text().splitlines() for name in ("memory", "sqlite", "redis", "rabbitmq")]
    urls = [[line for line in text if line.startswith("url:")] for text in texts]
    assert [len(url) for url in urls] == [1, 1, 1, 1]
    assert len({url[0] for url in urls}) == 4
    rest = [[line for line in text if not line.startswith("url:")] for text in texts]
    assert rest == [rest[0]] * 4


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_config_that_ships_can_be_loaded(path: Path, tmp_path: Path) -> None:
    write(tmp_path, "rediss://:hush@h/0", "kq_url")
    loaded = load(file=path, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}, folder=tmp_path)
    assert loaded.config.app
    assert "hush" not in str(loaded.rows())
