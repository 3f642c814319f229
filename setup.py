"""Packaging of tff-compress.

`pip install tff-compress` needs NumPy alone: codecs and frames. TensorFlow Federated 0.87 pins a jaxlib that is no
longer published, so pip cannot resolve the `tff` extra; requirements.lock has a set that works: `pip install --no-deps
-r requirements.lock`, which is what `make` does.
"""

import os
import re

import setuptools

HERE = os.path.dirname(os.path.abspath(__file__))
EXTRAS = {
    'tff': ['tensorflow-federated==0.87.0', 'tensorflow==2.14.1'],
    'tflite': ['tensorflow==2.14.1', 'ai-edge-litert==2.3.0', 'tensorflow-model-optimization==0.7.5',
               'jsonschema>=4.18'],
    'plots': ['matplotlib>=3.7', 'jinja2>=3.1'],
    'yaml': ['pyyaml>=6'],
    'serve': ['starlette>=0.27', 'uvicorn>=0.23', 'sqlalchemy>=2,<2.1', 'fsspec>=2023.1', 'jinja2>=3.1'],
    'test': ['pytest>=8', 'pytest-xdist>=3.5', 'hypothesis>=6.100', 'scipy>=1.9', 'constriction>=0.4',
             'zstandard>=0.22', 'ml-dtypes>=0.2'],
    # mypy 1.10 is the last that does with the typing-extensions that TFF 0.87 asks for.
    'lint': ['ruff>=0.17', 'mypy==1.10.1', 'types-pyyaml', 'types-jsonschema'],
}


def read(*path):
  with open(os.path.join(HERE, *path), encoding='utf-8') as file:
    return file.read()


packages = setuptools.find_packages(include=['tff_compress', 'tff_compress.*', 'tflite_export', 'tflite_export.*'])
commands = ['tff-compress=tff_compress.cli:main']
if 'tflite_export' in packages:
  commands.append('tflite-export=tflite_export.cli:main')

setuptools.setup(
    name='tff-compress',
    version=re.search(r"^__version__ = '(.+)'$", read('tff_compress', '__init__.py'), re.MULTILINE)[1],
    description='Compressed uplinks and downlinks for TensorFlow Federated, '
                'the same bytes in a simulation and on a phone',
    long_description=read('README.md') if os.path.exists(os.path.join(HERE, 'README.md')) else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    python_requires='>=3.11,<3.12',
    packages=packages,
    package_data={'': ['*.npz', '*.json', 'templates/*.html', '*.css', '*.js', 'py.typed']},
    install_requires=['numpy>=1.25,<2'],
    extras_require=EXTRAS,
    entry_points={'console_scripts': commands},
    zip_safe=False,
)
