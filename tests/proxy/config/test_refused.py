"""What is refused, with the path of the field and the reason."""

import pytest
from bootstraps import web
from bootstraps.bad import BAD, Bad
from bootstraps.dubbo import BAD as DUBBO_BAD
from bootstraps.dynamic import BAD as DYNAMIC_BAD
from bootstraps.tls import BAD as TLS_BAD

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap


@pytest.mark.parametrize("bad", [*BAD, *DUBBO_BAD, *TLS_BAD, *DYNAMIC_BAD], ids=lambda bad: bad.name)
def test_refused_with_path_and_reason(bad: Bad) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, bad.text)
    found = dict(caught.value.problems)
    assert bad.path in found, str(caught.value)
    assert bad.why in found[bad.path]
    assert len(found) == 1 or bad.name in SEVERAL, str(caught.value)
    assert "\n" not in found[bad.path]


SEVERAL = {"merge key", "terminal filter not last"}


def test_the_sample_itself_is_accepted() -> None:
    assert load_bootstrap(None, web()).warnings == ()


def test_several_faults_are_reported_together() -> None:
    text = web(
        hcm="tracing: {}, proxy_status_config: {}",
        cluster="lb_policy: LOAD_BALANCING_POLICY_CONFIG",
        tcp="tunneling_config: {hostname: 'a:1'}",
    )
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, text)
    assert len(caught.value.problems) == 4
    assert len(str(caught.value).splitlines()) == 4
