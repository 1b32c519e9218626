"""The truth: types, times, ids, grades, languages and odd files, each measured on a log whose right answer is known."""
