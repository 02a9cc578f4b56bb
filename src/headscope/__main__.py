"""`python -m headscope` is the command `headscope`; torchrun starts it so: `torchrun … -m headscope finetune …`."""

from headscope.cli.app import main

if __name__ == "__main__":
    main()
