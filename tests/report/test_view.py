from dataclasses import replace

import pytest
from report_sample import hospitals


@pytest.mark.parametrize("blank", ["", "  "])
def test_privacy_is_never_left_blank(blank):
    with pytest.raises(ValueError, match="must say what privacy was spent"):
        replace(hospitals(), epsilon=blank)
