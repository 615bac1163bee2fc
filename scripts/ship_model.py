"""Export the model of a run as one small file for inference."""

from functools import partial

import command

from diffusion.support.keras_files import model_file


def parse_arguments():
    parser = command.Parser(
        description="Write the model of a finished run as one small file for inference: its moving "
        "average without the optimizer, in half precision, with the run's record beside it."
    )
    run, words = partial(command.model, recorded=True), "folder of the run, or its .keras file"
    parser.add_argument("run", type=run, help=words)
    output = command.writable(".keras", like=is_exported, beside=is_record)
    parser.add_argument("output", type=output, help="the .keras file to write")
    arguments = parser.parse_args()
    command.check_not_source(arguments.output, model_file(arguments.run))
    return arguments


def is_exported(config):
    """Whether the config of a `.keras` file is that of an exported model, not a checkpoint."""
    return config["class_name"] == "DiffusionModel" and not config.get("compile_config")


def is_record(content):
    """Whether the content of a JSON file is the record of a run."""
    return {"config", "data", "history"} <= content.keys()


def main():
    arguments = parse_arguments()
    command.load_keras()
    from diffusion.training.export import export_run, load_run

    run = load_run(arguments.run)
    export_run(run, arguments.output)
    megabytes = arguments.output.stat().st_size / 1e6
    print(f"{run.caption}: {arguments.output}, {megabytes:.1f} MB")


if __name__ == "__main__":
    command.run(main)
