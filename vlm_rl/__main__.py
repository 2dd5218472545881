"""python -m vlm_rl"""

from vlm_rl.cli import main

main()
