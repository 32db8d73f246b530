"""The paper's user study: questionnaires about a study's pictures, and what people answer."""
