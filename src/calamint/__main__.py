import sys

from calamint.cli import main

sys.exit(main())
