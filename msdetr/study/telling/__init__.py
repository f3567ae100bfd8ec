"""What a study found, told: sections, figures, HTML, Markdown, LaTeX and CSV."""
